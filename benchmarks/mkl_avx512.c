/* MKL takes its AVX-512 kernels only on Intel's processors. In front of it (LD_PRELOAD), these two answer the question whether
   this is one, so that PyTorch can be timed at its best on others as well. */
int mkl_serv_intel_cpu(void) { return 1; }
int mkl_serv_intel_cpu_true(void) { return 1; }
