        .section .rodata
        .global takt_console_blob
        .type   takt_console_blob, @object
        .balign 16
takt_console_blob:
        .incbin TAKT_CONSOLE_BLOB
        .byte   0
        .size   takt_console_blob, . - takt_console_blob
        .section .note.GNU-stack, "", @progbits
