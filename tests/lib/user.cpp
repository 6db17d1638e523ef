// user.cpp - the public header from C++, in a program that has a locale of its own.
//   user MODEL DATA OUT
#include <moetune.h>

#include <clocale>
#include <cstdio>

int main(int argc, char **argv)
{
    moetune_error err;
    if (argc != 4) return 2;
    std::setlocale(LC_ALL, "");
    std::printf("point %s\n", std::localeconv()->decimal_point);
    moetune *m = moetune_open(argv[1], &err);
    const bool ok =
        m && moetune_set(m, "data", argv[2], &err) && moetune_set(m, "out", argv[3], &err) &&
        moetune_set(m, "lr", "0.015", &err) && moetune_set(m, "max-steps", "2", &err) &&
        moetune_set(m, "tuning", "dora", &err) && moetune_set(m, "lora-rank", "4", &err);
    const moetune_result *r = ok ? moetune_train(m, &err) : nullptr;
    const moetune_loss *s = r ? moetune_score(m, argv[2], &err) : nullptr;
    if (s) std::printf("learnt %lld\n", static_cast<long long>(s->loss * 1e6));
    if (!s) std::printf("error %s\n", err.message);
    moetune_close(m);
    return s ? 0 : 1;
}
