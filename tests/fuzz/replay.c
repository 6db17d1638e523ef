// tests/fuzz/replay.c - a main for fuzz targets where there is no libFuzzer: every file of the folders
// given is run once.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    static uint8_t bytes[1 << 22];
    const size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    uint8_t *exact = malloc(n ? n : 1); // of the exact size, so that a read past its end is seen
    if (!exact) return 0;
    for (size_t i = 0; i < n; i++) {
        exact[i] = bytes[i];
    }
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 1;
}

int main(int argc, char **argv)
{
    int files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        for (struct dirent *e; d && (e = readdir(d));) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (e->d_name[0] != '.') files += run_file(path);
        }
        if (d) closedir(d);
    }
    printf("%d inputs\n", files);
    return files ? 0 : 1;
}
