# src/MODULE/x_test.c is the unit test of x.c: one cmocka program each, labelled `unit`.
# A first line `/* labels: threads; needs: model */` adds labels.
# tests/*.sh and tests/*.py drive the built program; label `system`. A script that ends with 77 was skipped.
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
set(DIL_TEST_ENV
  "DILEMMA=$<TARGET_FILE:dilemma>"
  "DILEMMA_NETLAB_BIN=$<TARGET_FILE:netlab>"
  "DILEMMA_DEPS=${DILEMMA_DEPS}"
  "DILEMMA_SOURCE=${CMAKE_SOURCE_DIR}"
  "DILEMMA_TEST_MODEL=${DILEMMA_DEPS}/models/SmolLM2-135M-Instruct.Q4_1.gguf"
  "DILEMMA_TEST_DATA=${CMAKE_SOURCE_DIR}/../shared/data"
  "DILEMMA_PYTHON=${DILEMMA_DEPS}/venv/bin/python"
  "DILEMMA_LLAMA_BIN=${DILEMMA_DEPS}/llama-bin")

if(DILEMMA_SANITIZE)
  list(APPEND DIL_TEST_ENV DILEMMA_TEST_QUICK=1 DILEMMA_PATH_SEEDS=400)
endif()
if(DILEMMA_SANITIZE MATCHES "thread") # nodes as released: the sanitizer holds signals back while a library waits
  list(REMOVE_ITEM DIL_TEST_ENV "DILEMMA=$<TARGET_FILE:dilemma>")
  list(APPEND DIL_TEST_ENV "DILEMMA=${CMAKE_SOURCE_DIR}/build/release/dilemma" "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/cmake/tsan.supp")
endif()

add_custom_target(threaded_tests)
file(GLOB unit_tests CONFIGURE_DEPENDS src/*/*_test.c)
foreach(src ${unit_tests})
  get_filename_component(name ${src} NAME_WE)
  get_filename_component(dir ${src} DIRECTORY)
  get_filename_component(module ${dir} NAME)
  set(test ${module}.${name})
  file(STRINGS ${src} first LIMIT_COUNT 1)
  set(labels unit)
  if(first MATCHES "labels: ([a-z_ ]+)")
    string(STRIP "${CMAKE_MATCH_1}" more)
    string(REPLACE " " ";" more "${more}")
    list(APPEND labels ${more})
  endif()
  add_executable(${test} ${src})
  target_compile_definitions(${test} PRIVATE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE DILEMMA_VERSION="${PROJECT_VERSION}")
  target_compile_options(${test} PRIVATE -Wall -Wextra -Wshadow)
  target_include_directories(${test} PRIVATE src)
  if(module STREQUAL "engine")
    target_include_directories(${test} SYSTEM PRIVATE ${GGML_INCLUDE})
  endif()
  if(module STREQUAL "cli")
    file(GLOB cli_parts src/cli/*.c)
    list(FILTER cli_parts EXCLUDE REGEX "(_test|/main|/cmd_[a-z]*)\\.c$")
    target_sources(${test} PRIVATE ${cli_parts})
  endif()
  if(module STREQUAL "netsim") # its machines stand where the operating system and ZeroMQ are: src/netsim/world.h
    file(GLOB netsim_parts CONFIGURE_DEPENDS src/netsim/*.c)
    list(FILTER netsim_parts EXCLUDE REGEX "_test\\.c$")
    target_sources(${test} PRIVATE ${netsim_parts})
    target_compile_options(${test} PRIVATE -Wno-missing-prototypes)
    foreach(call pthread_create pthread_join pthread_mutex_init pthread_mutex_destroy pthread_mutex_lock pthread_mutex_unlock pthread_cond_init
        pthread_cond_destroy pthread_cond_wait pthread_cond_timedwait pthread_cond_signal pthread_cond_broadcast malloc calloc realloc free strdup mmap
        munmap clock_gettime clock_nanosleep read write close poll eventfd fopen randombytes_buf dil_cpu_count dil_engine_layer_memory)
      target_link_options(${test} PRIVATE -Wl,--wrap=${call})
    endforeach()
  endif()
  target_link_libraries(${test} PRIVATE dilemma_lib PkgConfig::CMOCKA)
  add_test(NAME ${test} COMMAND ${test})
  set_tests_properties(${test} PROPERTIES LABELS "${labels}" ENVIRONMENT "${DIL_TEST_ENV}" SKIP_RETURN_CODE 77)
  if("threads" IN_LIST labels)
    add_dependencies(threaded_tests ${test})
  endif()
  if("threads" IN_LIST labels OR module MATCHES "^(net|enrol|serve|netlab)$") # these wait for each other's answers
    set_tests_properties(${test} PROPERTIES RUN_SERIAL ON)
  endif()
endforeach()

file(GLOB scripts CONFIGURE_DEPENDS tests/*_test.sh tests/*_test.py)
foreach(src ${scripts})
  get_filename_component(name ${src} NAME_WE)
  if(src MATCHES "py$")
    add_test(NAME system.${name} COMMAND ${DILEMMA_DEPS}/venv/bin/python ${src})
  else()
    add_test(NAME system.${name} COMMAND bash ${src})
  endif()
  set_tests_properties(system.${name} PROPERTIES LABELS system ENVIRONMENT "${DIL_TEST_ENV}" SKIP_RETURN_CODE 77)
endforeach()
# Several tests run at once, but for those whose servers, nodes and clocks want the machine for themselves. These do not:
set(DIL_PARALLEL_SCRIPTS dataset_test gguf_test import_test layers_test oracle_test families_test tokenizer_test unigram_test)
foreach(src ${scripts})
  get_filename_component(name ${src} NAME_WE)
  if(NOT name IN_LIST DIL_PARALLEL_SCRIPTS)
    set_tests_properties(system.${name} PROPERTIES RUN_SERIAL ON)
  endif()
endforeach()
# These build the tree again with another compiler, or make and import whole checkpoints.
set_tests_properties(system.sanitizers_test system.fuzz_test system.oracle_test PROPERTIES TIMEOUT 2400)
