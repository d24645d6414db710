#pragma once

/// A SQLite file system on top of the machine's own that fails when told to, for tests of errors that a healthy disk
/// does not show. Registered once under the name "faulty-disk".
int faulty_disk_register(void);

enum {
    faulty_disk_sync = 1,
    faulty_disk_write = 2,
    faulty_disk_full = 3,
    /// Syncs of the file named `prefix` itself, and not of its log.
    faulty_disk_sync_of_database = 4,
};

/// From now on operations of this kind fail on files whose path begins with `prefix`; kind 0 heals the disk.
void faulty_disk_arm(const char *prefix, int kind);

/// How many operations have failed since the disk was armed.
int faulty_disk_failures(void);
