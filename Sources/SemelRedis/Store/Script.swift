internal import Crypto
internal import Semel

/// A program that Redis runs as one step: known by its SHA-1, and sent in full only to a server that does not have it.
struct Script: Sendable {
    let text: String
    let sha: [UInt8]

    /// A program of so many parts.
    init(_ parts: String...) {
        text = parts.joined()
        let digits = Array("0123456789abcdef".utf8)
        sha = Insecure.SHA1.hash(data: Array(text.utf8)).flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
    }

    func call(keys: [[UInt8]], _ arguments: [[UInt8]]) -> RedisCommand { command("EVALSHA", sha, keys, arguments) }

    /// The same with the text, for a server that has lost it.
    func callInFull(keys: [[UInt8]], _ arguments: [[UInt8]]) -> RedisCommand { command("EVAL", Array(text.utf8), keys, arguments) }

    private func command(_ name: String, _ script: [UInt8], _ keys: [[UInt8]], _ arguments: [[UInt8]]) -> RedisCommand {
        let size = (keys + arguments).reduce(64 + script.count) { $0 + $1.count + 12 }
        var command = RedisCommand(arguments: 3 + keys.count + arguments.count, reserving: size)
        command.add(name)
        command.add(script)
        command.add(String(keys.count))
        for key in keys { command.add(key) }
        for argument in arguments { command.add(argument) }
        return command
    }
}

/// `RecordMachine`, transcribed for Redis: one program a transition, on the server's clock.
///
/// A record is one string of fixed and length-prefixed parts, numbers with the most significant byte first, so that Lua
/// takes and puts together parts of it without knowing the rest. Bytes are counted from 1, as Lua does.
///
/// ```
///  1 format version (1)             2 state + lapse rule << 3 + mode << 5      3 flags
///  4 owner (16)                    20 fingerprint (32)
/// 52 policy (4)                    56 created at (7, microseconds)
///
/// live:                            completed:
/// 63 epoch (2 incarnation, 7)      63 completed at: 4, after creation; or 7, absolute (flag 32)
/// 72 changed at (7)                   epoch (9), unless it is the time of creation (flag 64)
/// 79 lease until (7)                  attempt (3), unless the first (flag 128)
/// 86 attempt (3)
/// 89 length (2) of what follows       length (2) of what follows
/// 91 kept part                        kept part
///    byte 1 + reason, if any          outcome (flag 8)
///
/// kept part: retentions (4 + 4 whole seconds: flag 4; or 7 + 7 microseconds), trace id (16: flag 1), parent (16: flag 2),
///            scope and key
/// ```
///
/// Flag 16 says that somebody elsewhere watches the record: changes are told to the channel.
///
/// Lua's numbers are doubles, exact up to 2^53: times in microseconds stay below that until the year 2255 and durations
/// are cut to 2^52 microseconds (142 years); an epoch is kept in two parts, and compared as bytes.
enum Scripts {
    static let all = [claim, complete, change, verify, decide, read, strip]

    /// What all begin with.
    private static let common = """
        local u, p, sub, byte, call = struct.unpack, struct.pack, string.sub, string.byte, redis.call

        """

    /// The server's time; it never goes back below what the caller has seen of it.
    private static let time = """
        local t = call('TIME')
        local now = t[1] * 1000000 + t[2]
        if now < floor then now = floor end

        """

    /// Tells those who watch a live record that it changes.
    private static let tell = """
        local function tell(r)
          local f = byte(r, 3)
          if f % 32 >= 16 then
            local o = 91 + (f % 8 >= 4 and 8 or 14) + (f % 2 >= 1 and 16 or 0) + (f % 4 >= 2 and 16 or 0)
            call('PUBLISH', string.match(KEYS[1], '^[^{]*') .. 'changed', sub(r, o, 90 + u('>I2', r, 89)))
          end
        end

        """

    /// What has lapsed by itself is uncertain: Epoch and token stay.
    private static let settle = """
        local function settle(r, b, s, e, now)
          if now >= e and (s == 3 or s == 1 and math.floor(b / 8) % 4 == 3) then
            return p('BB', 1, b - s + 4) .. sub(r, 3, 71) .. p('>I7', e) .. sub(r, 79, 90 + u('>I2', r, 89)) .. '\\1'
              .. (s == 3 and '\(RecordMachine.Reason.interruptedStream)' or '\(RecordMachine.Reason.lapsed)'), 4
          end
          return r, s
        end

        """

    private static let nextEpoch = """
        local function nextEpoch(i, c, inc, now)
          now = now % 4503599627370496
          if i < inc then return inc, now end
          if i == inc and c + 1 < now then return i, now end
          c = c + 1
          if c >= 4503599627370496 then return i + 1, 0 end
          return i, c
        end

        """

    /// A completed record out of a live one; `keep` are retentions of the completion's own, or nothing.
    private static let finish = """
        local function finish(r, b, s, inc, clock, now, keep, outcome)
          local created = u('>I7', r, 56)
          local f = byte(r, 3) % 8 + 8
          local parts = {'', sub(r, 4, 62)}
          if now - created < 4294967296 then
            parts[3] = p('>I4', now - created)
          else
            f = f + 32
            parts[3] = p('>I7', now)
          end
          if inc ~= 0 or clock ~= created then
            f = f + 64
            parts[4] = p('>I2I7', inc, clock)
          else
            parts[4] = ''
          end
          if u('>I3', r, 86) ~= 1 then
            f = f + 128
            parts[5] = sub(r, 86, 88)
          else
            parts[5] = ''
          end
          local length = u('>I2', r, 89)
          local kept
          if keep == '' then
            kept = sub(r, 89, 90 + length)
          else
            local old = f % 8 >= 4 and 8 or 14
            f = f - (f % 8 >= 4 and 4 or 0) + byte(keep, 1)
            kept = p('>I2', length - old + #keep - 1) .. sub(keep, 2) .. sub(r, 91 + old, 90 + length)
          end
          parts[1] = p('BBB', 1, b - s + 5, f)
          parts[6] = kept
          parts[7] = outcome
          local record = table.concat(parts)
          local key
          if f % 8 >= 4 then key = u('>I4', kept, 7) * 1000000 else key = u('>I7', kept, 10) end
          if key <= \(briefRetention) then
            call('SET', KEYS[1], record, 'PXAT', string.format('%.0f', math.floor((now + key) / 1000) + \(grace)))
          else
            call('SET', KEYS[1], record)
          end
          call('ZREM', KEYS[2], sub(KEYS[1], -16))
        end

        """

    /// Where the parts of a completed record are.
    private static let parse = """
        local function parse(r)
          local f = byte(r, 3)
          local created = u('>I7', r, 56)
          local changed, o
          if f % 64 >= 32 then
            changed, o = u('>I7', r, 63), 70
          else
            changed, o = created + u('>I4', r, 63), 67
          end
          local epoch
          if f % 128 >= 64 then
            epoch, o = sub(r, o, o + 8), o + 9
          else
            epoch = p('>I2I7', 0, created)
          end
          if f >= 128 then o = o + 3 end
          local length = u('>I2', r, o)
          local response, key
          if f % 8 >= 4 then
            response, key = u('>I4I4', r, o + 2)
            response, key = response * 1000000, key * 1000000
          else
            response, key = u('>I7I7', r, o + 2)
          end
          return f, changed + response, changed + key, epoch, o + 2, length
        end

        """

    /// Keys kept no longer than this (microseconds) are left to Redis' own expiry altogether; of others the housekeeping
    /// first takes the outcome. A key without expiry takes 40 bytes less.
    private static let briefRetention = 3_600_000_000

    /// Redis removes a record this long (milliseconds) after its retention. Whether it has expired is decided when reading.
    static let grace = 60_000

    /// The answers' first bytes. After it comes the store's time in 7 bytes, and what else belongs to the answer.
    enum Answer: UInt8 {
        case first = 1
        case again = 2
        case completed = 3
        case expired = 4
        case tooManyKeys = 5
        case mismatch = 6
        case inProgress = 7
        case uncertain = 8
        case unreadable = 9
        case reclaimed = 10
        case verify = 11
        case verifyAgain = 12
        case nothing = 13
        case applied = 14
        case superseded = 15
    }

    // KEYS: record, index.
    // ARGV: the record's first 55 bytes; its kept part with its length;
    //       lease, least time, incarnation, the scope's number, whether a record may be made + 2 if the caller watches, length of scope and key
    static let claim = Script(
        common,
        """
        local lease, floor, inc, score, may, n = u('>I7I7I2I7BI2', ARGV[3])

        """, time,
        """
        local r = call('GET', KEYS[1])
        if r then
          local v, b = byte(r, 1, 2)
          local s = b and b % 8 or 0
          if v ~= 1 or s == 0 or s > 5 or b > 127 then return p('>BI7', 9, now) .. r end
          if s == 5 then
            local f = byte(r, 3)
            local changed, o
            if f % 64 >= 32 then
              changed, o = u('>I7', r, 63), 72
            else
              changed, o = u('>I7', r, 56) + u('>I4', r, 63), 69
            end
            if f % 128 >= 64 then o = o + 9 end
            if f >= 128 then o = o + 3 end
            local response, key
            if f % 8 >= 4 then
              response, key = u('>I4I4', r, o)
              response, key = response * 1000000, key * 1000000
            else
              response, key = u('>I7I7', r, o)
            end
            if now < changed + key then
              local last = o + u('>I2', r, o - 2)
              if sub(r, last - n, last - 1) ~= sub(ARGV[2], -n) then return p('>BI7', 9, now) .. r end
              if sub(r, 20, 51) ~= sub(ARGV[1], 20, 51) then return p('>BI7', 6, now) end
              if f % 16 >= 8 and now < changed + response then return p('>BI7', 3, now) .. r end
              return p('>BI7', 4, now)
            end
          else
            local e, length = u('>I7', r, 79), u('>I2', r, 89)
            if sub(r, 91 + length - n, 90 + length) ~= sub(ARGV[2], -n) then return p('>BI7', 9, now) .. r end

        """, tell, settle, nextEpoch,
        """
            local settled, state = settle(r, b, s, e, now)
            if settled ~= r then
              call('SET', KEYS[1], settled)
              tell(r)
            end
            if sub(r, 20, 51) ~= sub(ARGV[1], 20, 51) then return p('>BI7', 6, now) end
            if state == 4 then return p('>BI7', 8, now) .. settled end
            if e > now then
              if s ~= 3 and sub(r, 4, 19) == sub(ARGV[1], 4, 19) then return p('>BI7', s == 2 and 12 or 2, now) .. r end
              if may >= 2 then
                local f = byte(r, 3)
                if f % 32 < 16 then call('SETRANGE', KEYS[1], 2, string.char(f + 16)) end
              end
              return p('>BI7I7', 7, now, e)
            end
            local verifies = math.floor(b / 8) % 4 == 2
            local i, c = u('>I2I7', r, 63)
            i, c = nextEpoch(i, c, inc, now)
            local taken = p('BB', 1, b - s + (verifies and 2 or 1)) .. sub(r, 3, 3) .. sub(ARGV[1], 4, 19) .. sub(r, 20, 62)
              .. p('>I2I7I7I7I3', i, c, now, now + lease, u('>I3', r, 86) + 1) .. sub(r, 89)
            call('SET', KEYS[1], taken)
            tell(r)
            return p('>BI7I7', verifies and 11 or 10, now, e) .. taken
          end
        end
        if may % 2 == 0 then return p('>BI7', 5, now) end
        call('SET', KEYS[1], ARGV[1] .. p('>I7I2I7I7I7I3', now, inc, now % 4503599627370496, now, now + lease, 1) .. ARGV[2])
        call('ZADD', KEYS[2], score, sub(KEYS[1], -16))
        return p('>BI7', 1, now)
        """)

    // ARGV: owner, epoch, least time; retentions with their flag, or nothing; outcome
    static let complete = Script(
        common,
        """
        local r = call('GET', KEYS[1])
        if not r or sub(r, 4, 19) ~= sub(ARGV[1], 1, 16) then return 15 end
        local v, b = byte(r, 1, 2)
        local s = b and b % 8 or 0
        if v ~= 1 or s == 0 or s > 5 or b > 127 then return 9 end
        local floor = u('>I7', ARGV[1], 26)

        """, time,
        """
        if s ~= 5 then
          if sub(r, 63, 71) ~= sub(ARGV[1], 17, 25) then return 15 end

        """, tell, finish,
        """
          local inc, clock = u('>I2I7', r, 63)
          finish(r, b, s, inc, clock, now, ARGV[2], ARGV[3])
          tell(r)
          return 14
        end

        """, parse,
        """
        local f, response, key, epoch, o, length = parse(r)
        if epoch == sub(ARGV[1], 17, 25) and now < key and now < response and f % 16 >= 8 and sub(r, o + length) == ARGV[3] then
          return 14
        end
        return 15
        """)

    // ARGV: owner, epoch, least time; what: r s m n p; reason or lease
    static let change = Script(
        common,
        """
        local r = call('GET', KEYS[1])
        if not r or sub(r, 4, 19) ~= sub(ARGV[1], 1, 16) then return 15 end
        local v, b = byte(r, 1, 2)
        local s = b and b % 8 or 0
        if v ~= 1 or s == 0 or s > 5 or b > 127 then return 9 end
        if s == 5 or sub(r, 63, 71) ~= sub(ARGV[1], 17, 25) then return 15 end
        local floor = u('>I7', ARGV[1], 26)

        """, time, tell, settle,
        """
        local e = u('>I7', r, 79)
        local settled, state = settle(r, b, s, e, now)
        local what = ARGV[2]
        -- The record with another state, change and lease.
        local function with(next, changed, lease)
          return p('BB', 1, b - s + next) .. sub(r, 3, 71) .. p('>I7I7', changed, lease) .. sub(r, 86)
        end
        local new
        if what == 'r' then
          if state == 3 then return 15 end
          call('DEL', KEYS[1])
          call('ZREM', KEYS[2], sub(KEYS[1], -16))
          tell(r)
          return 14
        elseif what == 's' then
          if state == 4 then
            if settled == r then return 14 end
            new = settled
          else
            new = sub(with(4, now, now), 1, 90 + u('>I2', r, 89)) .. '\\1' .. ARGV[3]
          end
        elseif what == 'm' then
          if state == 3 then return 14 end
          if state ~= 1 then return 15 end
          new = with(3, now, e)
        elseif what == 'n' then
          if state == 4 then return 15 end
          call('SETRANGE', KEYS[1], 78, p('>I7', math.max(e, now + u('>I7', ARGV[3]))))
          return 14
        else
          if state == 1 and math.floor(b / 8) % 4 == 2 then return 14 end
          if state ~= 2 then return 15 end
          new = with(1, now, now + u('>I7', ARGV[3]))
        end
        call('SET', KEYS[1], new)
        tell(r)
        return 14
        """)

    // ARGV: owner, lease, least time, incarnation
    static let verify = Script(
        common,
        """
        local lease, floor, inc = u('>I7I7I2', ARGV[1], 17)

        """, time, tell, settle, nextEpoch,
        """
        local r = call('GET', KEYS[1])
        if not r then return p('>BI7', 13, now) end
        local v, b = byte(r, 1, 2)
        local s = b and b % 8 or 0
        if v ~= 1 or s == 0 or s > 5 or b > 127 then return p('>BI7', 9, now) .. r end
        if s == 5 then return p('>BI7', 13, now) end
        local e = u('>I7', r, 79)
        local settled, state = settle(r, b, s, e, now)
        if state ~= 4 and e > now then return p('>BI7', 13, now) end
        local i, c = u('>I2I7', r, 63)
        i, c = nextEpoch(i, c, inc, now)
        local taken = p('BB', 1, math.floor(b / 32) * 32 + 16 + 2) .. sub(r, 3, 3) .. sub(ARGV[1], 1, 16) .. sub(r, 20, 62)
          .. p('>I2I7I7I7', i, c, now, now + lease) .. sub(settled, 86)
        call('SET', KEYS[1], taken)
        tell(r)
        return p('>BI7I7', 11, now, math.min(now, e)) .. taken
        """)

    // KEYS: record, index, audit entries of the bucket that are not chained yet.
    // ARGV: what: a n f; least time, incarnation; outcome; the entry's first part; the epoch that is expected, or nothing
    static let decide = Script(
        common,
        """
        local floor, inc = u('>I7I2', ARGV[2])

        """, time, tell, settle, nextEpoch, finish, parse,
        """
        local r = call('GET', KEYS[1])
        if not r then return 15 end
        local v, b = byte(r, 1, 2)
        local s = b and b % 8 or 0
        if v ~= 1 or s == 0 or s > 5 or b > 127 then return 9 end
        local function audit(epoch, state, next)
          call('RPUSH', KEYS[3], p('>I7', now) .. sub(r, 52, 55) .. string.char(s) .. epoch .. string.char(state) .. next .. ARGV[4])
        end
        local none = string.rep('\\0', 9)
        if ARGV[1] == 'f' then
          if s ~= 5 then return 15 end
          local _, _, key, epoch = parse(r)
          if now >= key or (ARGV[5] ~= '' and ARGV[5] ~= epoch) then return 15 end
          call('DEL', KEYS[1])
          audit(epoch, 0, none)
          return 14
        end
        if s == 5 or (ARGV[5] ~= '' and ARGV[5] ~= sub(r, 63, 71)) then return 15 end
        local e = u('>I7', r, 79)
        local settled, state = settle(r, b, s, e, now)
        if state ~= 4 and e > now then return 15 end
        if ARGV[1] == 'n' then
          call('DEL', KEYS[1])
          call('ZREM', KEYS[2], sub(KEYS[1], -16))
          audit(sub(r, 63, 71), 0, none)
        else
          local i, c = u('>I2I7', r, 63)
          i, c = nextEpoch(i, c, inc, now)
          finish(r, b, s, i, c, now, '', ARGV[3])
          audit(sub(r, 63, 71), 5, p('>I2I7', i, c))
        end
        tell(r)
        return 14
        """)

    // ARGV: least time; 1 if the caller watches
    static let read = Script(
        common,
        """
        local floor = u('>I7', ARGV[1])

        """, time,
        """
        local r = call('GET', KEYS[1])
        if not r then return p('>BI7', 13, now) end
        if ARGV[2] == '1' then
          local v, b, f = byte(r, 1, 3)
          if v == 1 and f and b % 8 ~= 5 and b < 128 and f % 32 < 16 then call('SETRANGE', KEYS[1], 2, string.char(f + 16)) end
        end
        return p('>BI7', 3, now) .. r
        """)

    // KEYS: record. ARGV: least time. Takes an outcome (1) or a key (2) that has outlived its retention.
    static let strip = Script(
        common,
        """
        local floor = u('>I7', ARGV[1])

        """, time, parse,
        """
        local r = call('GET', KEYS[1])
        if not r then return 0 end
        local v, b = byte(r, 1, 2)
        if v ~= 1 or not b or b > 127 or b % 8 ~= 5 then return 0 end
        local f, response, key, epoch, o, length = parse(r)
        if now >= key then
          call('DEL', KEYS[1])
          return 2
        end
        if f % 16 >= 8 and now >= response then
          call('SET', KEYS[1], sub(r, 1, 2) .. string.char(f - 8) .. sub(r, 4, o + length - 1),
            'PXAT', string.format('%.0f', math.floor(key / 1000) + \(grace)))
          return 1
        end
        return 0
        """)
}
