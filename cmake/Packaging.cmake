# What `make install` and the packages hold. The libraries that Debian does not have (ggml, HiGHS) go into lib/dilemma, where the
# program's RPATH looks; everything below lib is relative, so that the tree may be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS dilemma dilemma_lib)
install(DIRECTORY include/dilemma DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(CMAKE_INSTALL_LIBDIR_REL ${CMAKE_INSTALL_LIBDIR})

# With their symbolic links; only those that are not the system's.
set(DIL_PRIVATE_LIBS "")
foreach(lib ${GGML_LIB} ${GGML_CPU_LIB} ${GGML_BASE_LIB} ${GGML_RPC_LIB} ${HIGHS_LIB})
  get_filename_component(dir ${lib} DIRECTORY)
  get_filename_component(base ${lib} NAME_WE)
  string(REGEX REPLACE "^lib" "" short ${base})
  string(APPEND DIL_PRIVATE_LIBS " -l${short}")
  if(dir MATCHES "^/usr/lib")
    continue()
  endif()
  file(GLOB files "${dir}/${base}.so*")
  install(FILES ${files} DESTINATION ${CMAKE_INSTALL_LIBDIR}/dilemma)
  if(lib STREQUAL GGML_CPU_LIB AND EXISTS ${dir}/glibc-hwcaps) # the same for newer CPUs (tools/deps portable)
    install(DIRECTORY ${dir}/glibc-hwcaps DESTINATION ${CMAKE_INSTALL_LIBDIR}/dilemma)
    install(FILES ${dir}/haswell DESTINATION ${CMAKE_INSTALL_LIBDIR}/dilemma) # a link, for older loaders
  endif()
  if(lib STREQUAL HIGHS_LIB) # its package brings the libraries that it was built with
    get_filename_component(highs_root ${dir} DIRECTORY)
    install(DIRECTORY ${highs_root}/lib/ DESTINATION ${CMAKE_INSTALL_LIBDIR}/dilemma FILES_MATCHING PATTERN "*.so*")
  endif()
endforeach()
file(RELATIVE_PATH from_bin /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR}/dilemma)
set_target_properties(dilemma PROPERTIES INSTALL_RPATH "$ORIGIN/${from_bin}")

configure_file(packaging/dilemma.pc.in packaging/dilemma.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/packaging/dilemma.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
write_basic_package_version_file(packaging/dilemmaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES packaging/dilemmaConfig.cmake.in DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/dilemma RENAME dilemmaConfig.cmake)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/packaging/dilemmaConfigVersion.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/dilemma)

# Man pages and completions come out of the program itself.
add_custom_command(OUTPUT packaging/man/dilemma.1 packaging/dilemma.bash packaging/_dilemma packaging/dilemma.fish
  COMMAND dilemma man -o ${CMAKE_CURRENT_BINARY_DIR}/packaging/man
  COMMAND dilemma completion bash -o packaging/dilemma.bash
  COMMAND dilemma completion zsh -o packaging/_dilemma
  COMMAND dilemma completion fish -o packaging/dilemma.fish
  DEPENDS dilemma VERBATIM)
add_custom_target(packaging_texts ALL DEPENDS packaging/man/dilemma.1)
install(DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/packaging/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING PATTERN "*.1")
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/packaging/dilemma.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME dilemma)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/packaging/_dilemma DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/packaging/dilemma.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

foreach(unit node serve)
  set(BINDIR ${CMAKE_INSTALL_FULL_BINDIR})
  configure_file(packaging/dilemma-${unit}.service packaging/dilemma-${unit}.service @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/packaging/dilemma-${unit}.service DESTINATION lib/systemd/system)
endforeach()
install(FILES packaging/grafana.json DESTINATION ${CMAKE_INSTALL_DATADIR}/dilemma)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE NOTICE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

# cpack -G DEB, or TGZ
set(CPACK_PACKAGE_NAME dilemma)
set(CPACK_PACKAGE_VENDOR "The dilemma authors")
set(CPACK_PACKAGE_CONTACT "The dilemma authors <dilemma@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "large language models over several small, unequal machines")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_GENERATOR DEB)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${DILEMMA_DEPS}/lib" "${DILEMMA_DEPS}/highs/lib")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "chromium")
include(CPack)
