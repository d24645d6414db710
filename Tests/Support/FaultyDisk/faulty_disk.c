#include "include/faulty_disk.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    sqlite3_file base;
    const char *path;
    sqlite3_file real[];
} faulty_file;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char armed_prefix[1024];
static int armed_kind;
static int failures;

void faulty_disk_arm(const char *prefix, int kind) {
    pthread_mutex_lock(&mutex);
    strncpy(armed_prefix, prefix, sizeof armed_prefix - 1);
    armed_kind = kind;
    failures = 0;
    pthread_mutex_unlock(&mutex);
}

int faulty_disk_failures(void) {
    pthread_mutex_lock(&mutex);
    int count = failures;
    pthread_mutex_unlock(&mutex);
    return count;
}

static int fails(faulty_file *file, int kind) {
    pthread_mutex_lock(&mutex);
    int result = armed_kind == kind && file->path && strncmp(file->path, armed_prefix, strlen(armed_prefix)) == 0;
    if (result) failures++;
    pthread_mutex_unlock(&mutex);
    return result;
}

#define REAL(file) (((faulty_file *)(file))->real)

static int close_file(sqlite3_file *f) { return REAL(f)->pMethods->xClose(REAL(f)); }
static int read_file(sqlite3_file *f, void *to, int n, sqlite3_int64 at) { return REAL(f)->pMethods->xRead(REAL(f), to, n, at); }
static int write_file(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) {
    if (fails((faulty_file *)f, faulty_disk_full)) return SQLITE_FULL;
    if (fails((faulty_file *)f, faulty_disk_write)) return SQLITE_IOERR_WRITE;
    return REAL(f)->pMethods->xWrite(REAL(f), from, n, at);
}
static int truncate_file(sqlite3_file *f, sqlite3_int64 size) { return REAL(f)->pMethods->xTruncate(REAL(f), size); }
static int sync_file(sqlite3_file *f, int flags) {
    faulty_file *file = (faulty_file *)f;
    if (fails(file, faulty_disk_sync)) return SQLITE_IOERR_FSYNC;
    if (file->path && strcmp(file->path, armed_prefix) == 0 && fails(file, faulty_disk_sync_of_database)) return SQLITE_IOERR_FSYNC;
    return REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int file_size(sqlite3_file *f, sqlite3_int64 *size) { return REAL(f)->pMethods->xFileSize(REAL(f), size); }
static int lock_file(sqlite3_file *f, int level) { return REAL(f)->pMethods->xLock(REAL(f), level); }
static int unlock_file(sqlite3_file *f, int level) { return REAL(f)->pMethods->xUnlock(REAL(f), level); }
static int is_reserved(sqlite3_file *f, int *result) { return REAL(f)->pMethods->xCheckReservedLock(REAL(f), result); }
static int control(sqlite3_file *f, int operation, void *argument) { return REAL(f)->pMethods->xFileControl(REAL(f), operation, argument); }
static int sector_size(sqlite3_file *f) { return REAL(f)->pMethods->xSectorSize(REAL(f)); }
static int characteristics(sqlite3_file *f) { return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f)); }

static const sqlite3_io_methods methods = {
    1, close_file, read_file, write_file, truncate_file, sync_file, file_size, lock_file, unlock_file, is_reserved, control,
    sector_size, characteristics,
};

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out) {
    sqlite3_vfs *real = vfs->pAppData;
    faulty_file *file = (faulty_file *)f;
    file->path = name;
    int code = real->xOpen(real, name, file->real, flags, out);
    file->base.pMethods = file->real->pMethods ? &methods : NULL;
    return code;
}

int faulty_disk_register(void) {
    static sqlite3_vfs vfs;
    pthread_mutex_lock(&mutex);
    if (!vfs.zName) {
        sqlite3_vfs *real = sqlite3_vfs_find(NULL);
        vfs = *real;
        vfs.zName = "faulty-disk";
        vfs.szOsFile = (int)sizeof(faulty_file) + real->szOsFile;
        vfs.pAppData = real;
        vfs.xOpen = open_file;
        sqlite3_vfs_register(&vfs, 0);
    }
    pthread_mutex_unlock(&mutex);
    return 0;
}
