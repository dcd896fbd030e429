# zlib writes what libdeflate cannot: deflate with a 4 KiB window.
ALL_LIBS += -lz
