// Adds the networks' custom calls to a module's table of handlers.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace gsdd {

inline void add_handlers(pybind11::module_& module,
                         std::initializer_list<std::pair<const char*, XLA_FFI_Handler*>> handlers) {
  pybind11::dict table = module.attr("handlers");
  for (const auto& [name, handler] : handlers)
    table[name] = pybind11::capsule(reinterpret_cast<void*>(handler));
}

void add_network_handlers(pybind11::module_& module);

}  // namespace gsdd
