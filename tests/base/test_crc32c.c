// The test vectors of RFC 3720, appendix B.4, and the check value of the CRC catalogue; any division of
// the bytes and any alignment give the same sum. Both ways of computing it, on any machine.
#include "support.h"

#include "base/crc32c.h"

#include <string.h>

typedef uint32_t (*checksum)(uint32_t crc, const void *bytes, size_t n);

static uint32_t crc32c_by_table(uint32_t crc, const void *bytes, size_t n)
{
    return ~crc32c_table(~crc, bytes, n);
}

static void agrees_with_the_rfc(void **state)
{
    const checksum sum = *(const checksum *)*state;
    unsigned char b[32];
    memset(b, 0, sizeof b);
    assert_int_equal(sum(0, b, 32), 0x8a9136aa);
    memset(b, 0xff, sizeof b);
    assert_int_equal(sum(0, b, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) {
        b[i] = (unsigned char)i;
    }
    assert_int_equal(sum(0, b, 32), 0x46dd794e);
    for (int i = 0; i < 32; i++) {
        b[i] = (unsigned char)(31 - i);
    }
    assert_int_equal(sum(0, b, 32), 0x113fdb5c);
    static const unsigned char read_command[48] = {
        0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02};
    assert_int_equal(sum(0, read_command, 48), 0xd9963a56);
    assert_int_equal(sum(0, "123456789", 9), 0xe3069283);
    assert_int_equal(sum(0, "", 0), 0);
}

static void chains_at_any_byte(void **state)
{
    const checksum sum = *(const checksum *)*state;
    unsigned char b[100];
    for (int i = 0; i < 100; i++) {
        b[i] = (unsigned char)(i * 37 + 11);
    }
    for (size_t start = 0; start < 9; start++) {
        const uint32_t whole = sum(0, b + start, 80);
        for (size_t cut = 0; cut <= 80; cut++) {
            const uint32_t first = sum(0, b + start, cut);
            assert_int_equal(sum(first, b + start + cut, 80 - cut), whole);
        }
        b[start + 40] ^= 1; // one bit
        assert_int_not_equal(sum(0, b + start, 80), whole);
    }
}

int main(void)
{
    static checksum library = crc32c;
    static checksum by_table = crc32c_by_table;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(agrees_with_the_rfc, &library),
        cmocka_unit_test_prestate(chains_at_any_byte, &library),
        cmocka_unit_test_prestate(agrees_with_the_rfc, &by_table),
        cmocka_unit_test_prestate(chains_at_any_byte, &by_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
