// Convolutions for XLA's CPU backend by oneDNN, as a foreign function: float32 results of bfloat16 products.
//
// Images are [batch, height, width, channels] and kernels [rows, columns, inputs, features]. `kind` selects the result: the
// convolution itself, its gradient by the input, or its gradient by the kernel.

#include <dnnl.hpp>
#include <omp.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <tuple>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

enum Kind : int64_t { kForward = 0, kInputGradient = 1, kKernelGradient = 2 };

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& Stream() {
  thread_local dnnl::stream stream(Engine());
  return stream;
}

// One primitive and the memory layouts it prefers, beside those of the caller's arrays.
struct Plan {
  dnnl::primitive primitive;
  Desc image, kernel, result;                       // as the primitive wants them
  Desc scratch;                                     // the primitive's own working memory
  Desc given_image, given_kernel, given_result;     // as XLA has them
};

Type TypeOf(const ffi::AnyBuffer& buffer) {
  return buffer.element_type() == ffi::DataType::BF16 ? Type::bf16 : Type::f32;
}

Dims DimsOf(const ffi::AnyBuffer& buffer) {
  auto dims = buffer.dimensions();
  return Dims(dims.begin(), dims.end());
}

Plan MakePlan(int64_t kind, const Dims& x, const Dims& w, const Dims& y, int64_t stride, int64_t pad, Type x_type,
              Type w_type, Type y_type) {
  Plan plan;
  const Dims image{x[0], x[3], x[1], x[2]}, kernel{w[3], w[2], w[0], w[1]}, result{y[0], y[3], y[1], y[2]};
  plan.given_image = {image, x_type, Tag::nhwc};
  plan.given_kernel = {kernel, w_type, Tag::hwio};
  plan.given_result = {result, y_type, Tag::nhwc};
  const Dims strides{stride, stride}, before{pad, pad};
  const Dims after{(y[1] - 1) * stride + w[0] - x[1] - pad, (y[2] - 1) * stride + w[1] - x[2] - pad};
  const Desc image16{image, Type::bf16, Tag::nhwc}, image32{image, Type::f32, Tag::nhwc};
  const Desc kernel16{kernel, Type::bf16, Tag::any}, kernel32{kernel, Type::f32, Tag::any};
  const Desc result16{result, Type::bf16, Tag::nhwc}, result32{result, Type::f32, Tag::nhwc};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto method = dnnl::algorithm::convolution_direct;
  const dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, method, image16, kernel16, kind == kForward ? result32 : result16,
      strides, before, after, attributes);
  if (kind == kForward) {
    plan.primitive = dnnl::convolution_forward(forward), plan.scratch = forward.scratchpad_desc();
    plan.image = forward.src_desc(), plan.kernel = forward.weights_desc(), plan.result = forward.dst_desc();
  } else if (kind == kInputGradient) {
    const dnnl::convolution_backward_data::primitive_desc of_input(Engine(), method, image32, kernel16, result16,
                                                                   strides, before, after, forward, attributes);
    plan.primitive = dnnl::convolution_backward_data(of_input), plan.scratch = of_input.scratchpad_desc();
    plan.image = of_input.diff_src_desc(), plan.kernel = of_input.weights_desc();
    plan.result = of_input.diff_dst_desc();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc of_kernel(Engine(), method, image16, kernel32, result16,
                                                                       strides, before, after, forward, attributes);
    plan.primitive = dnnl::convolution_backward_weights(of_kernel), plan.scratch = of_kernel.scratchpad_desc();
    plan.image = of_kernel.src_desc(), plan.kernel = of_kernel.diff_weights_desc();
    plan.result = of_kernel.diff_dst_desc();
  }
  return plan;
}

// Memory of this thread that grows as needed and is used again by later calls.
void* Scratch(int slot, size_t bytes) {
  thread_local struct { void* data = nullptr; size_t size = 0; } slots[4];
  auto& found = slots[slot];
  if (bytes > found.size) {
    std::free(found.data);
    found.size = (bytes + 4095) / 4096 * 4096;
    found.data = std::aligned_alloc(4096, found.size);
    if (!found.data) {
      found.size = 0;
      throw std::bad_alloc();
    }
  }
  return found.data;
}

inline uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// A float32 rounded to the nearest bfloat16, ties to even, in the upper half.
inline uint32_t Rounded(float value) {
  const uint32_t bits = Bits(value);
  return bits + 0x7fff + ((bits >> 16) & 1);
}

inline uint32_t Pair(float low, float high) { return (Rounded(low) >> 16) | (Rounded(high) & 0xffff0000u); }

// Packs a float32 kernel into the blocked bfloat16 layouts of the matrix unit; false for any other layout. oneDNN's general
// reorder takes four times as long, which for wide layers is longer than the convolution.
bool PackKernel(const Desc& want, const Desc& given, const float* w, void* packed) {
  if (want.get_inner_nblks() != 3 || want.get_data_type() != Type::bf16 || given.get_data_type() != Type::f32) return false;
  const Dims blocks = want.get_inner_blks(), order = want.get_inner_idxs(), stride = want.get_strides();
  const int64_t features = want.get_dims()[0], inputs = want.get_dims()[1];
  const int64_t rows = want.get_dims()[2], columns = want.get_dims()[3], width = blocks[1];
  const bool by_inputs = order == Dims{1, 0, 1}, by_features = order == Dims{0, 1, 0};
  if (blocks[0] != 16 || blocks[2] != 2 || features % 32 || inputs % 32 || !(by_inputs || by_features)) return false;
  if ((by_inputs ? features : inputs) % width) return false;
  auto* out = static_cast<uint32_t*>(packed);  // two numbers each
  const int64_t feature_block = by_inputs ? width : 32, input_block = by_inputs ? 32 : width;
  const int64_t taps = rows * columns;
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t i = 0; i < inputs / input_block; ++i) {
      for (int64_t f = 0; f < features / feature_block; ++f) {
        const float* from = w + (tap * inputs + i * input_block) * features + f * feature_block;
        uint32_t* to = out + (f * stride[0] + i * stride[1] + tap / columns * stride[2] + tap % columns * stride[3]) / 2;
        if (by_inputs) {  // 16 pairs of inputs x `width` features
          for (int64_t pair = 0; pair < 16; ++pair) {
            const float *low = from + 2 * pair * features, *high = low + features;
            for (int64_t feature = 0; feature < width; ++feature) to[pair * width + feature] = Pair(low[feature], high[feature]);
          }
        } else {  // 16 pairs of features x `width` inputs
          for (int64_t input = 0; input < width; ++input) {
            const float* row = from + input * features;
            for (int64_t pair = 0; pair < 16; ++pair) to[pair * width + input] = Pair(row[2 * pair], row[2 * pair + 1]);
          }
        }
      }
    }
  }
  return true;
}

dnnl::memory Operand(const Desc& want, const Desc& given, const ffi::AnyBuffer& buffer, int slot) {
  dnnl::memory as_given(given, Engine(), buffer.untyped_data());
  if (want == given) return as_given;
  dnnl::memory converted(want, Engine(), Scratch(slot, want.get_size()));
  const auto* values = static_cast<const float*>(buffer.untyped_data());
  if (slot != 1 || !PackKernel(want, given, values, converted.get_data_handle()))
    dnnl::reorder(as_given, converted).execute(Stream(), as_given, converted);
  return converted;
}

dnnl::memory Result(const Desc& want, const Desc& given, const ffi::AnyBuffer& buffer, int slot) {
  return {want, Engine(), want == given ? buffer.untyped_data() : Scratch(slot, want.get_size())};
}

ffi::Error Convolve(int64_t kind, int64_t stride, int64_t pad, ffi::AnyBuffer first, ffi::AnyBuffer second,
                    ffi::Result<ffi::AnyBuffer> made) {
  // One thread a convolution: XLA runs independent ones, such as both gradients of a layer, side by side on its own threads.
  // Teams of threads would wait for each other at every barrier as soon as another process needs a core.
  omp_set_num_threads(1);
  const ffi::AnyBuffer x = kind == kInputGradient ? *made : first;
  const ffi::AnyBuffer w = kind == kKernelGradient ? *made : kind == kInputGradient ? first : second;
  const ffi::AnyBuffer y = kind == kForward ? *made : second;
  try {
    using Key = std::tuple<int64_t, Dims, Dims, Dims, int64_t, int64_t, Type, Type, Type>;
    static std::map<Key, Plan> plans;
    const Key key{kind, DimsOf(x), DimsOf(w), DimsOf(y), stride, pad, TypeOf(x), TypeOf(w), TypeOf(y)};
    static std::mutex making;
    Plan* known;
    {
      const std::lock_guard<std::mutex> lock(making);
      auto found = plans.find(key);
      if (found == plans.end()) found = plans.emplace(key, std::apply(MakePlan, key)).first;
      known = &found->second;
    }
    Plan& plan = *known;
    const bool makes_image = kind == kInputGradient, makes_kernel = kind == kKernelGradient;
    dnnl::memory image = (makes_image ? Result : Operand)(plan.image, plan.given_image, x, 0);
    dnnl::memory kernel = (makes_kernel ? Result : Operand)(plan.kernel, plan.given_kernel, w, 1);
    dnnl::memory result = (kind == kForward ? Result : Operand)(plan.result, plan.given_result, y, 2);
    dnnl::memory scratch(plan.scratch, Engine(), Scratch(3, plan.scratch.get_size()));
    plan.primitive.execute(Stream(), {{DNNL_ARG_SCRATCHPAD, scratch},
                                      {makes_image ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, image},
                                      {makes_kernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, kernel},
                                      {kind == kForward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, result}});
    dnnl::memory& computed = makes_image ? image : makes_kernel ? kernel : result;
    const Desc& given = makes_image ? plan.given_image : makes_kernel ? plan.given_kernel : plan.given_result;
    if (computed.get_desc() != given) {
      dnnl::memory out(given, Engine(), made->untyped_data());
      dnnl::reorder(computed, out).execute(Stream(), computed, out);
    }
    Stream().wait();
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory: no working memory for a convolution");
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ThJaxConvolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("kind")
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("pad")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
