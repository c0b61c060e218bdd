// The OpenAPI document, as it lies in the source tree.
    .section .rodata
    .global takt_openapi_begin
    .global takt_openapi_end
takt_openapi_begin:
    .incbin TAKT_OPENAPI_FILE
takt_openapi_end:
    .section .note.GNU-stack,"",%progbits
