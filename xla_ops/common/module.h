// Exports a table {target name: handler} to Python, for jax.ffi to register.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace gsdd {

inline void add_handlers(pybind11::module_& module,
                         std::initializer_list<std::pair<const char*, XLA_FFI_Handler*>> handlers) {
  if (!pybind11::hasattr(module, "handlers")) module.attr("handlers") = pybind11::dict();
  pybind11::dict table = module.attr("handlers");
  for (const auto& [name, handler] : handlers)
    table[name] = pybind11::capsule(reinterpret_cast<void*>(handler));
}

void add_network_handlers(pybind11::module_& module);  // network/cpu.cc, network/cuda.cc

}  // namespace gsdd
