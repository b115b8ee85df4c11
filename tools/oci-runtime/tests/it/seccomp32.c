/* For the 32-bit entrance: makes a directory, or the call of a number nobody has, and exits with the number of the error. */
void _start(void) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(NUMBER), "b"("/made32"), "c"(0700));
    __asm__ volatile("int $0x80" ::"a"(1), "b"(-result));
}
