# Fails where an object compiled for one instruction set defines a weak symbol (csrc/cpu/isa.h, rule 1).
# DW.ref.* is data of the exception tables, the same in every object.
execute_process(COMMAND ${NM} -C --defined-only ${OBJECTS} OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${NM} could not read the objects of the kernels")
endif()
string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" weak "${symbols}")
list(FILTER weak EXCLUDE REGEX "DW\\.ref\\.")
if(weak)
  list(JOIN weak "\n  " weak)
  message(FATAL_ERROR "Kernel sources emit weak symbols, see csrc/cpu/isa.h, rule 1:\n  ${weak}")
endif()
