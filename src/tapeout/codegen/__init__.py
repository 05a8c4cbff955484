"""From loops (level L) and programs to object code, through text of LLVM IR."""
