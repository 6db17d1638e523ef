// io/tokenizer_unicode.c - UTF-8, and the classes of characters. `tokenizers` matches with Oniguruma,
// whose classes are those of Unicode 16; PCRE2's and utf8proc's are those of the installed version. The
// table holds every range whose class changed from Unicode 14 on, with its class in Unicode 16, so that
// ids do not depend on what is installed.
#include "io/tokenizer_parts.h"

#include <string.h>
#include <utf8proc.h>

// Unicode's general categories, as far as the table needs them.
enum category { CF, CN, LL, LM, LO, LU, MC, MN, ND, NO, PD, PO, SM, SO, CATEGORIES };

static const struct {
    uint32_t first, last;
    enum category category;
} changed[] = {
    {0x0295, 0x0295, LL},   {0x0558, 0x0558, CN},   {0x058B, 0x058C, CN},   {0x05C8, 0x05C9, CN},
    {0x088F, 0x088F, CN},   {0x0897, 0x0897, MN},   {0x0B53, 0x0B54, CN},   {0x0C5C, 0x0C5C, CN},
    {0x0CDC, 0x0CDC, CN},   {0x0CF3, 0x0CF3, MC},   {0x0ECE, 0x0ECE, MN},   {0x180E, 0x180E, CF},
    {0x1ACF, 0x1AF0, CN},   {0x1B4E, 0x1B4F, PO},   {0x1B7F, 0x1B7F, PO},   {0x1C89, 0x1C89, LU},
    {0x1C8A, 0x1C8A, LL},   {0x208F, 0x208F, CN},   {0x209D, 0x209F, CN},   {0x20C1, 0x20C4, CN},
    {0x2427, 0x2429, SO},   {0x2B96, 0x2B96, CN},   {0x2E60, 0x2E63, CN},   {0x2FFC, 0x2FFF, SO},
    {0x31E4, 0x31E5, SO},   {0x31EF, 0x31EF, SO},   {0xA7CB, 0xA7CC, LU},   {0xA7CD, 0xA7CD, LL},
    {0xA7CE, 0xA7CF, CN},   {0xA7D2, 0xA7D2, CN},   {0xA7D4, 0xA7D4, CN},   {0xA7DA, 0xA7DA, LU},
    {0xA7DB, 0xA7DB, LL},   {0xA7DC, 0xA7DC, LU},   {0xA7DD, 0xA7DD, CN},   {0xA7E2, 0xA7E2, CN},
    {0xA7F1, 0xA7F1, CN},   {0xAB6C, 0xAB6D, CN},   {0xFBC3, 0xFBD2, CN},   {0xFD90, 0xFD91, CN},
    {0xFDC8, 0xFDCE, CN},   {0x105C0, 0x105F3, LO}, {0x107BB, 0x107BF, CN}, {0x10940, 0x10959, CN},
    {0x10D40, 0x10D49, ND}, {0x10D4A, 0x10D4D, LO}, {0x10D4E, 0x10D4E, LM}, {0x10D4F, 0x10D4F, LO},
    {0x10D50, 0x10D65, LU}, {0x10D69, 0x10D6D, MN}, {0x10D6E, 0x10D6E, PD}, {0x10D6F, 0x10D6F, LM},
    {0x10D70, 0x10D85, LL}, {0x10D8E, 0x10D8F, SM}, {0x10EC2, 0x10EC4, LO}, {0x10EC5, 0x10EC7, CN},
    {0x10EC9, 0x10EEE, CN}, {0x10EF0, 0x10EFB, CN}, {0x10EFC, 0x10EFF, MN}, {0x1123F, 0x11240, LO},
    {0x11241, 0x11241, MN}, {0x11380, 0x11389, LO}, {0x1138B, 0x1138B, LO}, {0x1138E, 0x1138E, LO},
    {0x11390, 0x113B5, LO}, {0x113B7, 0x113B7, LO}, {0x113B8, 0x113BA, MC}, {0x113BB, 0x113C0, MN},
    {0x113C2, 0x113C2, MC}, {0x113C5, 0x113C5, MC}, {0x113C7, 0x113CA, MC}, {0x113CC, 0x113CD, MC},
    {0x113CE, 0x113CE, MN}, {0x113CF, 0x113CF, MC}, {0x113D0, 0x113D0, MN}, {0x113D1, 0x113D1, LO},
    {0x113D2, 0x113D2, MN}, {0x113D3, 0x113D3, LO}, {0x113D4, 0x113D5, PO}, {0x113D7, 0x113D8, PO},
    {0x113E1, 0x113E2, MN}, {0x116D0, 0x116E3, ND}, {0x1171E, 0x1171E, MC}, {0x11B00, 0x11B09, PO},
    {0x11B0A, 0x11B0A, CN}, {0x11B60, 0x11B67, CN}, {0x11BC0, 0x11BE0, LO}, {0x11BE1, 0x11BE1, PO},
    {0x11BF0, 0x11BF9, ND}, {0x11DB0, 0x11DDB, CN}, {0x11DE0, 0x11DE9, CN}, {0x11DF0, 0x11DF1, CN},
    {0x11F00, 0x11F01, MN}, {0x11F02, 0x11F02, LO}, {0x11F03, 0x11F03, MC}, {0x11F04, 0x11F10, LO},
    {0x11F12, 0x11F33, LO}, {0x11F34, 0x11F35, MC}, {0x11F36, 0x11F3A, MN}, {0x11F3E, 0x11F3F, MC},
    {0x11F40, 0x11F40, MN}, {0x11F41, 0x11F41, MC}, {0x11F42, 0x11F42, MN}, {0x11F43, 0x11F4F, PO},
    {0x11F50, 0x11F59, ND}, {0x11F5A, 0x11F5A, MN}, {0x1246F, 0x1246F, CN}, {0x12475, 0x1247F, CN},
    {0x12550, 0x12686, CN}, {0x1342F, 0x1342F, LO}, {0x13439, 0x1343F, CF}, {0x13440, 0x13440, MN},
    {0x13441, 0x13446, LO}, {0x13447, 0x13455, MN}, {0x13460, 0x143FA, LO}, {0x16100, 0x1611D, LO},
    {0x1611E, 0x16129, MN}, {0x1612A, 0x1612C, MC}, {0x1612D, 0x1612F, MN}, {0x16130, 0x16139, ND},
    {0x16D40, 0x16D42, LM}, {0x16D43, 0x16D6A, LO}, {0x16D6B, 0x16D6C, LM}, {0x16D6D, 0x16D6F, PO},
    {0x16D70, 0x16D79, ND}, {0x16EA0, 0x16EB8, CN}, {0x16EBB, 0x16ED3, CN}, {0x16FF2, 0x16FF6, CN},
    {0x187F8, 0x187FF, CN}, {0x18CD6, 0x18CDA, CN}, {0x18CFF, 0x18CFF, LO}, {0x18D09, 0x18D20, CN},
    {0x18D80, 0x18DF2, CN}, {0x18E00, 0x19191, CN}, {0x191A0, 0x191D2, CN}, {0x1B123, 0x1B128, CN},
    {0x1B132, 0x1B132, LO}, {0x1B155, 0x1B155, LO}, {0x1B168, 0x1B168, CN}, {0x1CC00, 0x1CCEF, SO},
    {0x1CCF0, 0x1CCF9, ND}, {0x1CCFA, 0x1CCFC, CN}, {0x1CD00, 0x1CEB3, SO}, {0x1CEBA, 0x1CED0, CN},
    {0x1CED2, 0x1CED4, CN}, {0x1CEDD, 0x1CEFD, CN}, {0x1D127, 0x1D128, CN}, {0x1D1EB, 0x1D1FF, CN},
    {0x1D250, 0x1D281, CN}, {0x1D2C0, 0x1D2D3, NO}, {0x1D6A6, 0x1D6A6, CN}, {0x1DB00, 0x1DB1C, CN},
    {0x1DF1F, 0x1DF24, CN}, {0x1DF25, 0x1DF2A, LL}, {0x1DF2B, 0x1DF81, CN}, {0x1DF90, 0x1DF96, CN},
    {0x1DFCD, 0x1DFFF, CN}, {0x1E030, 0x1E06D, LM}, {0x1E08F, 0x1E08F, MN}, {0x1E4D0, 0x1E4EA, LO},
    {0x1E4EB, 0x1E4EB, LM}, {0x1E4EC, 0x1E4EF, MN}, {0x1E4F0, 0x1E4F9, ND}, {0x1E5D0, 0x1E5ED, LO},
    {0x1E5EE, 0x1E5EF, MN}, {0x1E5F0, 0x1E5F0, LO}, {0x1E5F1, 0x1E5FA, ND}, {0x1E5FF, 0x1E5FF, PO},
    {0x1E6C0, 0x1E6DE, CN}, {0x1E6E0, 0x1E6F5, CN}, {0x1E6FE, 0x1E6FF, CN}, {0x1F1AE, 0x1F1AE, CN},
    {0x1F6D8, 0x1F6D9, CN}, {0x1F6DC, 0x1F6DC, SO}, {0x1F774, 0x1F776, SO}, {0x1F777, 0x1F77A, CN},
    {0x1F77B, 0x1F77F, SO}, {0x1F7D9, 0x1F7D9, SO}, {0x1F7DA, 0x1F7DB, CN}, {0x1F7F1, 0x1F7FF, CN},
    {0x1F8B2, 0x1F8BB, SO}, {0x1F8C0, 0x1F8C1, SO}, {0x1F8D0, 0x1F8D8, CN}, {0x1FA54, 0x1FA57, CN},
    {0x1FA75, 0x1FA77, SO}, {0x1FA87, 0x1FA89, SO}, {0x1FA8A, 0x1FA8E, CN}, {0x1FA8F, 0x1FA8F, SO},
    {0x1FAAD, 0x1FAAF, SO}, {0x1FABB, 0x1FABF, SO}, {0x1FAC6, 0x1FAC6, SO}, {0x1FAC8, 0x1FAC8, CN},
    {0x1FACC, 0x1FACD, CN}, {0x1FACE, 0x1FACF, SO}, {0x1FADA, 0x1FADC, SO}, {0x1FADD, 0x1FADD, CN},
    {0x1FADF, 0x1FADF, SO}, {0x1FAE8, 0x1FAE9, SO}, {0x1FAEA, 0x1FAEB, CN}, {0x1FAEF, 0x1FAEF, CN},
    {0x1FAF7, 0x1FAF8, SO}, {0x1FAF9, 0x1FAFA, CN}, {0x1FBCB, 0x1FBEF, SO}, {0x1FBFA, 0x1FBFA, CN},
    {0x2B739, 0x2B739, LO}, {0x2B73A, 0x2B73F, CN}, {0x2B81E, 0x2B81E, CN}, {0x2CEA2, 0x2CEAD, CN},
    {0x2EBF0, 0x2EE5D, LO}, {0x31350, 0x323AF, LO}, {0x323B0, 0x33479, CN}, {0x3D000, 0x3FC3F, CN}};

// A character of each class that every version since Unicode 14 puts there, by length in UTF-8.
static const uint32_t stand_in[CATEGORIES][3] = {
    [CF] = {0x061C, 0x200B, 0xE0001}, [CN] = {0x0378, 0xFFFE, 0x1FFFE},
    [LL] = {0x0138, 0x1E01, 0x10428}, [LM] = {0x02BC, 0x0E46, 0x16B40},
    [LO] = {0x01BB, 0x0E01, 0x10300}, [LU] = {0x0391, 0x1E00, 0x10400},
    [MC] = {0x0483, 0x0903, 0x11000}, [MN] = {0x0483, 0x0941, 0x101FD},
    [ND] = {0x0660, 0x0966, 0x104A0}, [NO] = {0x00BC, 0x0F2A, 0x10107},
    [PD] = {0x058A, 0x2E1A, 0x10EAD}, [PO] = {0x055A, 0x203B, 0x10100},
    [SM] = {0x03F6, 0x2200, 0x1D6C1}, [SO] = {0x0482, 0x2300, 0x10137},
};

// Length of the valid sequence at p, of which n bytes may be read; 0: invalid. *bad: how many bytes of
// it could still have begun one, at least 1.
static size_t sequence(const unsigned char *p, size_t n, size_t *bad)
{
    *bad = 1;
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4) return 0;
    const size_t length = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    unsigned char low = 0x80, high = 0xBF; // of the second byte: no overlong forms, no surrogates
    if (p[0] == 0xE0) low = 0xA0;
    if (p[0] == 0xED) high = 0x9F;
    if (p[0] == 0xF0) low = 0x90;
    if (p[0] == 0xF4) high = 0x8F;
    for (size_t i = 1; i < length; i++) {
        if (i >= n || p[i] < low || p[i] > high) return 0;
        *bad = i + 1;
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

size_t utf8_valid(const char *text, size_t size)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0, bad;
    while (at < size) {
        const size_t n = sequence(p + at, size - at, &bad);
        if (!n) break;
        at += n;
    }
    return at;
}

uint32_t utf8_next(const char *text, size_t *at)
{
    const unsigned char *p = (const unsigned char *)text + *at;
    if (p[0] < 0x80) {
        *at += 1;
        return p[0];
    }
    if (p[0] < 0xE0) {
        *at += 2;
        return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    }
    if (p[0] < 0xF0) {
        *at += 3;
        return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    }
    *at += 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

size_t utf8_put(char *out, uint32_t c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

size_t utf8_before(const char *text, size_t at)
{
    do {
        at--;
    } while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80);
    return at;
}

bool utf8_append_lossy(struct buf *b, const char *bytes, size_t n)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t at = 0, start = 0, bad;
    while (at < n) {
        const size_t length = sequence(p + at, n - at, &bad);
        if (length) {
            at += length;
            continue;
        }
        if (!buf_append(b, bytes + start, at - start) || !buf_puts(b, "\xEF\xBF\xBD")) return false;
        at += bad;
        start = at;
    }
    return buf_append(b, bytes + start, at - start);
}

// The row of `changed` that holds c, or -1.
static int find_changed(uint32_t c)
{
    if (c < changed[0].first) return -1;
    int low = 0, high = (int)(sizeof changed / sizeof changed[0]) - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (changed[middle].first <= c) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return c <= changed[low].last ? low : -1;
}

bool unicode_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

bool unicode_is_numeric(uint32_t c)
{
    if (c < 0x80) return c >= '0' && c <= '9';
    const int row = find_changed(c);
    if (row >= 0) return changed[row].category == ND || changed[row].category == NO;
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool unicode_is_word(uint32_t c)
{
    if (c == 0x200C || c == 0x200D) return true; // the two joiners
    // Circled and squared letters: symbols that count as alphabetic.
    if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
        (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189)) {
        return true;
    }
    const int row = c < 0x80 ? -1 : find_changed(c);
    if (row >= 0) {
        const enum category k = changed[row].category;
        return k >= LL && k <= ND;
    }
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

bool unicode_shadow(char **shadow, const char *text, size_t size)
{
    *shadow = NULL;
    for (size_t at = 0; at < size;) {
        const size_t start = at;
        const uint32_t c = utf8_next(text, &at);
        // Below the table, and the common Chinese characters: nothing changed there.
        if (c < changed[0].first || (c >= 0x4E00 && c <= 0x9FFF)) continue;
        const int row = find_changed(c);
        if (row < 0) continue;
        if (!*shadow && !(*shadow = mem_strndup(text, size))) return false;
        utf8_put(*shadow + start, stand_in[changed[row].category][at - start - 2]);
    }
    return true;
}
