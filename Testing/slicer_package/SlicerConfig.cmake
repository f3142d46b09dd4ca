# A stand-in for a built Slicer, to configure, build, test and package the extension without one. Everything that this
# project calls is Slicer's own code, out of SLICER_SOURCE and CTK_SOURCE (checkouts of Slicer/Slicer and commontk/CTK);
# here are only the settings that a build of Slicer would have written down.

set(Slicer_CMAKE_DIR ${SLICER_SOURCE}/CMake)
set(Slicer_EXTENSIONS_CMAKE_DIR ${SLICER_SOURCE}/Extensions/CMake)
set(CTK_CMAKE_DIR ${CTK_SOURCE}/CMake)
list(PREPEND CMAKE_MODULE_PATH
  ${CMAKE_BINARY_DIR}/absent ${Slicer_CMAKE_DIR} ${Slicer_EXTENSIONS_CMAKE_DIR} ${CTK_CMAKE_DIR})
list(PREPEND CMAKE_PREFIX_PATH ${CMAKE_BINARY_DIR}/absent)

set(Slicer_USE_FILE ${Slicer_CMAKE_DIR}/UseSlicer.cmake.in)
set(Slicer_EXTENSION_GENERATE_CONFIG ${Slicer_CMAKE_DIR}/SlicerExtensionGenerateConfig.cmake)
set(Slicer_EXTENSION_CPACK ${Slicer_CMAKE_DIR}/SlicerExtensionCPack.cmake)
set(Slicer_EXTENSION_CPACK_BUNDLE_FIXUP ${Slicer_CMAKE_DIR}/SlicerExtensionCPackBundleFixup.cmake.in)
set(Slicer_PYTHON_MODULE_TEST_TEMPLATES_DIR ${SLICER_SOURCE}/Base/QTCore/Testing/Python)
set(Slicer_LICENSE_FILE ${SLICER_SOURCE}/License.txt)
set(Slicer_README_FILE ${SLICER_SOURCE}/README.md)

set(Slicer_REVISION 34000)
set(Slicer_WC_ROOT https://github.com/Slicer/Slicer.git)
set(Slicer_OS linux)
set(Slicer_ARCHITECTURE amd64)
set(Slicer_ORGANIZATION_NAME "The Slicer Community")
set(Slicer_MAIN_PROJECT_APPLICATION_NAME Slicer)
set(Slicer_EXTENSIONS_DIRBASENAME slicer.org/Extensions)

set(Slicer_USE_PYTHONQT ON)
set(Slicer_USE_CTKAPPLAUNCHER OFF)
set(Slicer_LAUNCHER_EXECUTABLE ${SLICER_EXECUTABLE})
set(Slicer_ExternalData_DATA_MANAGEMENT_TARGET SlicerData)
set(Slicer_SKIP_ITKPlatformSpecificChecks ON)

set(Slicer_INSTALL_ROOT "./")
set(Slicer_SHARE_DIR share/Slicer-5.12)
foreach(_type CLI QTLOADABLE QTSCRIPTED)
  string(TOLOWER ${_type} _folder)
  string(REGEX REPLACE "^qt" "qt-" _folder ${_folder})
  foreach(_kind BIN LIB)
    set(Slicer_${_type}MODULES_${_kind}_DIR lib/Slicer-5.12/${_folder}-modules)
  endforeach()
  set(Slicer_${_type}MODULES_SHARE_DIR share/Slicer-5.12/${_folder}-modules)
endforeach()

# Python, as Slicer's build found it
set(PYTHONINTERP_FOUND ON)
set(PYTHONLIBS_FOUND ON)
set(PYTHON_LIBRARIES ${PYTHON_EXECUTABLE})
include(ctkFunctionExtractOptimizedLibrary)

# What a build of Slicer brings along and a scripted module has no use for.
foreach(_absent PythonQtConfig SlicerExecutionModelConfig vtkMacroKitPythonWrap NoUseFile)
  file(WRITE ${CMAKE_BINARY_DIR}/absent/${_absent}.cmake "")
endforeach()
file(WRITE ${CMAKE_BINARY_DIR}/absent/CTKAppLauncherConfig.cmake
  "function(ctkAppLauncherConfigureForExecutable)\nendfunction()\n")
set(SlicerExecutionModel_USE_FILE NoUseFile)
