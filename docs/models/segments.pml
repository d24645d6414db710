/* A store that keeps keys in segments of time, and the boundary between two of them (SemelPostgres/Segments).
 *
 * Several claimants claim one key. A claimant knows the map of the segments as it last read it, and from the sealed segments'
 * filters, or by a look, whether they hold the key. Then, in a transaction, it shares a lock on the map, makes sure that the
 * map is the one it knows, and inserts the key into the current segment, whose index takes each key once. A rotation seals the
 * current segment and begins another, with the lock alone. Housekeeping moves what is live out of a sealed segment into the
 * current one, as a claim would come there, and then drops the sealed one, with the lock alone.
 *
 * Promise: at most one claimant wins, and what it won is kept.
 *
 * What `scripts/models` expects:
 *   holds
 *   fails -DNOLOCK     claims take no shared lock on the map
 *   fails -DEARLY      the lock is given up before the claim commits
 *   fails -DNOVERSION  the map is not compared under the lock
 *   fails -DNOMOVE     a segment is dropped with live records in it
 */
#define CLAIMANTS 3
#define SEGMENTS 3

byte current = 0;          /* the segment that takes claims */
byte version = 0;          /* of the map: another one after each change */
bool kept[SEGMENTS];       /* the key is in the segment, committed */
bool pending[SEGMENTS];    /* an insert of the key is not committed yet: whoever wants to insert it too waits */
bool dropped[SEGMENTS];
byte readers = 0;          /* holders of the shared lock on the map */
bool sealing = false;      /* the exclusive lock is held */
byte wins = 0;

inline share()   { atomic { !sealing -> readers++ } }
inline unshare() { readers-- }
inline alone()   { atomic { !sealing && readers == 0 -> sealing = true } }

proctype Claimant()
{
    byte segment;
    byte known;
    byte sealed;
    bool found;

again:
    atomic { segment = current; known = version; sealed = 0; found = false };
    /* Each sealed segment's filter is of its own time. */
    do
    :: sealed < segment ->
        atomic {
            if
            :: !dropped[sealed] && kept[sealed] -> found = true
            :: else
            fi;
            sealed++
        }
    :: else -> break
    od;
    if
    :: found -> goto end
    :: else
    fi;
#ifndef NOLOCK
    share();
#endif
#ifndef NOVERSION
    if
    :: version != known ->
#ifndef NOLOCK
        unshare();
#endif
        goto again
    :: else
    fi;
#endif
    /* The unique index: wait for one that inserts the same key, then take the key or find it taken. */
    atomic {
        !pending[segment] ->
        if
        :: kept[segment] -> found = true
        :: else -> pending[segment] = true
        fi
    };
#ifdef EARLY
    unshare();
#endif
    if
    :: found
    :: else ->
        atomic {
            pending[segment] = false;
            kept[segment] = true;
            wins++;
            assert(wins <= 1)
        }
    fi;
#if !defined(NOLOCK) && !defined(EARLY)
    unshare();
#endif
end:
    skip
}

proctype Rotation()
{
    byte old;
    byte known;
    do
    :: current < SEGMENTS - 1 ->
        alone();
        atomic { current++; version++ };
        sealing = false
    :: current > 0 && !dropped[current - 1] ->
        atomic { old = current - 1; known = version };
#ifndef NOMOVE
        /* Beside claims, and like one: under the shared lock, into the segment that is current under it. */
        share();
        if
        :: version == known -> atomic { kept[current] = kept[current] || kept[old]; kept[old] = false }
        :: else
        fi;
        unshare();
#endif
        alone();
        atomic { dropped[old] = true; version++ };
        assert(wins == 0 || kept[0] && !dropped[0] || kept[1] && !dropped[1] || kept[2] && !dropped[2]);
        sealing = false
    :: break
    od
}

init
{
    byte number;
    atomic {
        number = 0;
        do
        :: number < CLAIMANTS -> run Claimant(); number++
        :: else -> break
        od;
        run Rotation()
    }
}
