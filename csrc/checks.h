// Checks of what Python passed in: every message quotes what was wanted and what was got.
#pragma once

#include <pybind11/numpy.h>

#include <initializer_list>
#include <string>

namespace rdn {

namespace py = pybind11;

constexpr py::ssize_t kAny = -1;
constexpr int kMostThreads = 256;  // the pool's threads are never given back

inline std::string describe(const py::dtype& dtype) {
    return py::str(dtype).cast<std::string>();
}

inline std::string describe(const py::array& array) {
    std::string text = describe(array.dtype()) + " [";
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
        text += (axis ? ", " : "") + std::to_string(array.shape(axis));
    return text + "]";
}

// Raises ValueError where `holds` is false. A macro, because only then the message is made: that takes longer than many
// a check, and to name a dtype longer than a small kernel.
#define RDN_REQUIRE(holds, message)                        \
    do {                                                   \
        if (!(holds)) throw rdn::py::value_error(message); \
    } while (false)

// The data of a C-contiguous array of T and of this shape, kAny for an axis of any length.
template <class T>
const T* checked(const py::array& array, std::initializer_list<py::ssize_t> shape, const std::string& wanted) {
    bool fits = py::isinstance<py::array_t<T>>(array) && array.ndim() == static_cast<py::ssize_t>(shape.size()) &&
                (array.flags() & py::array::c_style) != 0;
    if (fits) {
        py::ssize_t axis = 0;
        for (const py::ssize_t length : shape) {
            fits = fits && (length == kAny || length == array.shape(axis));
            ++axis;
        }
    }
    RDN_REQUIRE(fits, "wanted contiguous " + describe(py::dtype::of<T>()) + " " + wanted + ", got " + describe(array));
    return static_cast<const T*>(array.data());
}

// The data of an array that the kernel writes to.
template <class T>
T* written(py::array& array, std::initializer_list<py::ssize_t> shape, const std::string& wanted) {
    checked<T>(array, shape, wanted);
    RDN_REQUIRE(array.writeable(), "wanted a writable " + wanted);
    return static_cast<T*>(array.mutable_data());
}

inline int checked_threads(int threads) {
    RDN_REQUIRE(threads >= 1, "threads must be at least 1, got " + std::to_string(threads));
    return threads < kMostThreads ? threads : kMostThreads;
}

template <class Number>
void require_positive(Number value, const char* name) {
    RDN_REQUIRE(value > 0, std::string(name) + " must be positive, got " + std::to_string(value));
}

inline void require_fraction(double value, const char* name) {
    RDN_REQUIRE(value >= 0.0 && value <= 1.0, std::string(name) + " must lie in 0..1, got " + std::to_string(value));
}

// Every one of data[0..count) is as `wanted` says; `holds` tells which are.
template <class T, class Predicate>
void require_each(const T* data, int64_t count, const char* wanted, const Predicate& holds) {
    for (int64_t k = 0; k < count; ++k)
        if (!holds(data[k]))
            throw py::value_error(std::string(wanted) + ", got " + std::to_string(data[k]) + " at flat position " +
                                  std::to_string(k));
}

}  // namespace rdn
