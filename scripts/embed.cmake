# cmake -DFROM=file -DTO=file.c -DNAME=name -DHEADER=header -P embed.cmake: the bytes of a file as
# NAME[] and NAME_size, which HEADER declares.
file(READ ${FROM} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes
  "${bytes}")
file(WRITE ${TO} "#include \"${HEADER}\"\n\nconst unsigned char ${NAME}[] = {\n${bytes}};\n"
  "const size_t ${NAME}_size = sizeof ${NAME};\n")
