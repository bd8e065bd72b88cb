// What a native module shows Python: {target name: handler}, for jax.ffi to register.
#pragma once

#include <pybind11/pybind11.h>

#include "xla/ffi/api/ffi.h"

namespace gsdd {

inline void export_handlers(pybind11::module_& m, XLA_FFI_Handler* forward,
                            XLA_FFI_Handler* backward) {
  pybind11::dict handlers;
  handlers["gsdd_rasterize"] = pybind11::capsule(reinterpret_cast<void*>(forward));
  handlers["gsdd_rasterize_gradient"] = pybind11::capsule(reinterpret_cast<void*>(backward));
  m.attr("handlers") = handlers;
}

}  // namespace gsdd
