// Exports a table {target name: handler} to Python, for jax.ffi to register.
#pragma once

#include <pybind11/pybind11.h>

#include "xla/ffi/api/ffi.h"

namespace gsdd {

struct Handlers {
  XLA_FFI_Handler* forward;
  XLA_FFI_Handler* backward;
  XLA_FFI_Handler* ragged_forward;
  XLA_FFI_Handler* ragged_backward;
};

inline void export_handlers(pybind11::module_& m, const Handlers& h) {
  pybind11::dict handlers;
  const auto add = [&](const char* name, XLA_FFI_Handler* handler) {
    handlers[name] = pybind11::capsule(reinterpret_cast<void*>(handler));
  };
  add("gsdd_rasterize", h.forward);
  add("gsdd_rasterize_gradient", h.backward);
  add("gsdd_rasterize_ragged", h.ragged_forward);
  add("gsdd_rasterize_ragged_gradient", h.ragged_backward);
  m.attr("handlers") = handlers;
}

}  // namespace gsdd
