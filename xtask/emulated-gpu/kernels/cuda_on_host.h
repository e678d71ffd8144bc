// CUDA's C++ as the host's: what a kernel's source finds built in.
//
// All threads of a grid run on one thread of the host, so atomic operations and fences have nothing to do, and variables of
// shared memory are the library's own. The arithmetic is the host's: operations that round once give a GPU's bits, `expf` and
// its like may differ in the last.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <vector_types.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernel_table.h"

using std::isinf;
using std::isnan;
using std::signbit;

// Words of the language. The headers above have defined some of them, as attributes of a host's compiler.
#undef __constant__
#undef __device__
#undef __forceinline__
#undef __global__
#undef __grid_constant__
#undef __host__
#undef __launch_bounds__
#undef __restrict__
#undef __shared__
#define __constant__
#define __device__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __host__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static

#define threadIdx emulated_threadIdx
#define blockIdx emulated_blockIdx
#define blockDim emulated_blockDim
#define gridDim emulated_gridDim
#define warpSize 32

// Sources ask for what the GPU can and what compiles them.
#define __CUDA_ARCH__ 900
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

// Threads that meet.
#define __syncthreads() emulated_barrier(__LINE__)
inline void __syncwarp(unsigned mask = ~0u) { emulated_ballot(mask, false); }
inline unsigned __ballot_sync(unsigned mask, int condition) { return emulated_ballot(mask, condition); }
inline int __any_sync(unsigned mask, int condition) { return emulated_ballot(mask, condition) != 0; }
inline int __all_sync(unsigned mask, int condition) { return emulated_ballot(mask, !condition) == 0; }

template <class To, class From> inline To emulated_cast(From from) {
    static_assert(sizeof(To) <= 8 && sizeof(From) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &from, sizeof from);
    To to;
    std::memcpy(&to, &bits, sizeof to);
    return to;
}

template <class T> inline T emulated_shuffle_of(unsigned mask, T value, int source, int kind) {
    return emulated_cast<T>(emulated_shuffle(mask, emulated_cast<uint64_t>(value), source, kind));
}

inline int emulated_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % warpSize;
}

// `width` lanes exchange among themselves; who asks for one outside gets its own value.
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
    const int lane = emulated_lane();
    return emulated_shuffle_of(mask, value, (lane & -width) | (source & (width - 1)), 1);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
    const int lane = emulated_lane(), within = lane & (width - 1);
    return emulated_shuffle_of(mask, value, within < int(by) ? lane : lane - int(by), 2);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize) {
    const int lane = emulated_lane(), within = lane & (width - 1);
    return emulated_shuffle_of(mask, value, within + int(by) >= width ? lane : lane + int(by), 3);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int by, int width = warpSize) {
    const int lane = emulated_lane(), source = lane ^ by;
    const bool within = (source & -width) == (lane & -width);
    return emulated_shuffle_of(mask, value, within ? source : lane, 4);
}

// Memory.
inline void __threadfence() { asm volatile("" ::: "memory"); }
inline void __threadfence_block() { asm volatile("" ::: "memory"); }
template <class T> inline T __ldg(const T *from) { return *from; }
template <class T> inline T __ldcg(const T *from) { return *(const volatile T *)from; }

template <class T> inline T emulated_exchange(T *at, T value) { return std::exchange(*at, value); }
template <class T, class U> inline T atomicAdd(T *at, U value) { return emulated_exchange(at, T(*at + T(value))); }
template <class T, class U> inline T atomicMax(T *at, U value) { return emulated_exchange(at, *at < T(value) ? T(value) : *at); }
template <class T, class U> inline T atomicMin(T *at, U value) { return emulated_exchange(at, T(value) < *at ? T(value) : *at); }
template <class T, class U> inline T atomicExch(T *at, U value) { return emulated_exchange(at, T(value)); }
template <class T, class U, class V> inline T atomicCAS(T *at, U expected, V value) {
    return emulated_exchange(at, *at == T(expected) ? T(value) : *at);
}

// Numbers. A result that the compiler does not see through is not fused with what follows, which is what these are for.
template <class T> inline T emulated_rounded(T x) {
    asm("" : "+x"(x));
    return x;
}
inline float __fadd_rn(float a, float b) { return emulated_rounded(a + b); }
inline float __fsub_rn(float a, float b) { return emulated_rounded(a - b); }
inline float __fmul_rn(float a, float b) { return emulated_rounded(a * b); }
inline float __fdiv_rn(float a, float b) { return emulated_rounded(a / b); }
inline float __fsqrt_rn(float x) { return emulated_rounded(sqrtf(x)); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }
inline float __expf(float x) { return expf(x); }

inline float __uint_as_float(unsigned bits) { return emulated_cast<float>(bits); }
inline float __int_as_float(int bits) { return emulated_cast<float>(bits); }
inline unsigned __float_as_uint(float x) { return emulated_cast<unsigned>(x); }
inline int __float_as_int(float x) { return emulated_cast<int>(x); }
inline double __longlong_as_double(long long bits) { return emulated_cast<double>(bits); }
inline long long __double_as_longlong(double x) { return emulated_cast<long long>(x); }

// The upper word of high:low moved up.
inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t by) {
    const uint64_t both = uint64_t(high) << 32 | low;
    return uint32_t(both << (by & 31) >> 32);
}

// Of integers, by the usual conversions where their types differ.
template <class A, class B, class = std::enable_if_t<std::is_integral_v<A> && std::is_integral_v<B>>>
inline std::common_type_t<A, B> min(A a, B b) {
    const std::common_type_t<A, B> x = a, y = b;
    return y < x ? y : x;
}
template <class A, class B, class = std::enable_if_t<std::is_integral_v<A> && std::is_integral_v<B>>>
inline std::common_type_t<A, B> max(A a, B b) {
    const std::common_type_t<A, B> x = a, y = b;
    return x < y ? y : x;
}
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// Functions of half precision that the headers give to a GPU's compiler alone.
#define EMULATED_HALF_FUNCTION(NAME, FUNCTION)                                                                              \
    inline __half NAME(__half x) { return __float2half(FUNCTION(__half2float(x))); }                                        \
    inline __nv_bfloat16 NAME(__nv_bfloat16 x) { return __float2bfloat16(FUNCTION(__bfloat162float(x))); }
EMULATED_HALF_FUNCTION(hcos, cosf)
EMULATED_HALF_FUNCTION(hexp, expf)
EMULATED_HALF_FUNCTION(hlog, logf)
EMULATED_HALF_FUNCTION(hrcp, 1.0f /)
EMULATED_HALF_FUNCTION(hrsqrt, rsqrtf)
EMULATED_HALF_FUNCTION(hsin, sinf)
EMULATED_HALF_FUNCTION(hsqrt, sqrtf)
#undef EMULATED_HALF_FUNCTION

// A kernel as an entry of the library's table.
template <auto Kernel> struct EmulatedEntry;
template <class... Arguments, void (*Kernel)(Arguments...)> struct EmulatedEntry<Kernel> {
    template <size_t... I> static void run(void **values, std::index_sequence<I...>) {
        Kernel(*static_cast<std::remove_reference_t<Arguments> *>(values[I])...);
    }
    static void call(void **values) { run(values, std::index_sequence_for<Arguments...>{}); }
    // Never empty, as an array must not be.
    static constexpr int sizes[] = {int(sizeof(Arguments))..., 0};
    static constexpr bool pointers[] = {std::is_pointer_v<Arguments>..., false};
    static constexpr EmulatedKernel entry(const char *name) { return {name, call, sizeof...(Arguments), sizes, pointers}; }
};

// What the linker calls the library's variables that begin as zeros: those of shared memory among them.
extern "C" char __bss_start, _end;
