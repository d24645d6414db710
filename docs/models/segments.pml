/* A store that keeps keys in segments of time, and the boundary between two of them.
 *
 * Several claimants claim one key. A claim reads which segment is the current one, looks for the key in the sealed ones, and
 * inserts it into the current one, whose index takes each key once. A rotation seals the current segment and begins another;
 * housekeeping moves what is live out of a sealed segment and drops it.
 *
 * Promise: at most one claimant wins.
 *
 * What `scripts/models` expects:
 *   holds
 *   fails -DNOLOCK     claims take no shared lock on the segment map
 *   fails -DEARLY      the lock is given up before the claim commits
 *   fails -DNOMOVE     a segment is dropped with live records in it
 */
#define CLAIMANTS 3
#define SEGMENTS 3

byte current = 0;          /* the segment that takes claims */
bool kept[SEGMENTS];       /* the key is in the segment, committed */
bool pending[SEGMENTS];    /* an insert of the key is not committed yet: whoever wants to insert it too waits */
bool dropped[SEGMENTS];
byte readers = 0;          /* holders of the shared lock on the segment map */
bool sealing = false;      /* the exclusive lock is held */
byte wins = 0;

inline share()   { atomic { !sealing -> readers++ } }
inline unshare() { readers-- }

proctype Claimant()
{
    byte segment;
    byte sealed = 0;
    bool found = false;

#ifndef NOLOCK
    share();
#endif
    segment = current;
    /* Every statement has a view of its own: each sealed segment is looked at in its own step. */
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
    :: found ->
#ifdef EARLY
        unshare()
#else
        skip
#endif
    :: else ->
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
        fi
    fi;
#if !defined(NOLOCK) && !defined(EARLY)
    unshare()
#endif
}

proctype Rotation()
{
    byte old;
    do
    :: current < SEGMENTS - 1 ->
        atomic { !sealing && readers == 0 -> sealing = true };
        current++;
        sealing = false
    :: current > 0 && !dropped[current - 1] ->
        /* Housekeeping of the last sealed segment, under the same lock. */
        atomic { !sealing && readers == 0 -> sealing = true };
        old = current - 1;
#ifndef NOMOVE
        if
        :: kept[old] -> kept[current] = true
        :: else
        fi;
#endif
        dropped[old] = true;
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
