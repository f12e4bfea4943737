/* MKL, inside the torch wheel, takes its AVX2 code on processors that are not Intel's. Preloading this answer to its vendor
 * check makes it take the AVX-512 code, which is what the same wheel does on an Intel processor:
 *   cc -shared -fPIC -o mkl_vendor_check.so mkl_vendor_check.c
 *   LD_PRELOAD=./mkl_vendor_check.so python … */
int mkl_serv_intel_cpu(void) { return 1; }
int mkl_serv_intel_cpu_true(void) { return 1; }
