#include "relation_plugin.h"

#include <cstring>
#include <new>

namespace rdn::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

enum Input : int32_t { kQuery, kBoxes, kKeys, kValues, kSupportBoxes, kMultiplicity, kWeight, kBias, kValueBias };
constexpr int32_t kRanks[kInputs] = {2, 2, 2, 2, 2, 1, 2, 1, 1};
constexpr int64_t kSplit = 1024;  // supports of one split: three at the paper's 37 frames of 75
constexpr int32_t kBad = 1;       // cudaErrorInvalidValue

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// Where everything is in the workspace, and how large that is.
struct Sizes {
    int64_t rows, dim, supports, heads;

    int64_t splits() const { return ceil_div(supports, kSplit); }
    std::size_t partial() const { return aligned(splits() * rows * dim * sizeof(float)); }
    std::size_t partial_weight() const { return aligned(splits() * rows * heads * 2 * sizeof(float)); }
    std::size_t weight() const { return aligned(rows * heads * 2 * sizeof(float)); }
    std::size_t geometry() const {
        cuda::RelationGates args{};
        args.queries.count = rows;
        args.supports.count = supports;
        return cuda::workspace_bytes(args);
    }
    std::size_t all() const { return partial() + partial_weight() + weight() + geometry(); }

  private:
    static std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
};

bool same(const nvinfer1::Dims& dims, int64_t first, int64_t second) {
    return dims.nbDims == 2 && dims.d[0] == first && dims.d[1] == second;
}

bool same(const nvinfer1::Dims& dims, int64_t first) {
    return dims.nbDims == 1 && dims.d[0] == first;
}

// Whether the inputs fit each other. heads must be at least 1.
bool read_sizes(const PluginTensorDesc* in, int64_t heads, Sizes* sizes) {
    const nvinfer1::Dims &query = in[kQuery].dims, &keys = in[kKeys].dims;
    if (query.nbDims != 2 || keys.nbDims != 2) return false;
    const int64_t n = query.d[0], dim = query.d[1], count = keys.d[0];
    *sizes = {n, dim, count, heads};
    return dim % heads == 0 && same(in[kBoxes].dims, n, 4) && same(keys, count, dim) &&
           same(in[kValues].dims, count, dim) && same(in[kSupportBoxes].dims, count, 4) &&
           same(in[kMultiplicity].dims, count) && same(in[kWeight].dims, heads, 64) && same(in[kBias].dims, heads) &&
           same(in[kValueBias].dims, dim);
}

const float* floats(const void* const* inputs, Input which) {
    return static_cast<const float*>(inputs[which]);
}

bool read(const PluginField& field, const char* name, int32_t* value) {
    if (field.name == nullptr || std::strcmp(field.name, name) != 0) return false;
    if (field.type != PluginFieldType::kINT32 || field.length != 1 || field.data == nullptr) return false;
    std::memcpy(value, field.data, sizeof *value);
    return true;
}

}  // namespace

nvinfer1::IPluginCapability* RelationPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE:
            return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD:
            return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME:
            return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

nvinfer1::IPluginV3* RelationPlugin::clone() noexcept {
    return new (std::nothrow) RelationPlugin(attributes_);
}

int32_t RelationPlugin::configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs,
                                        const DynamicPluginTensorDesc*, int32_t outputs) noexcept {
    if (inputs != kInputs || outputs != getNbOutputs()) return kBad;
    for (int32_t i = 0; i < kInputs; ++i)
        if (in[i].desc.dims.nbDims != kRanks[i]) return kBad;
    return 0;
}

int32_t RelationPlugin::getOutputDataTypes(DataType* types, int32_t outputs, const DataType*,
                                           int32_t inputs) const noexcept {
    if (inputs != kInputs || outputs != getNbOutputs()) return kBad;
    for (int32_t i = 0; i < outputs; ++i)
        types[i] = DataType::kFLOAT;
    return 0;
}

int32_t RelationPlugin::getOutputShapes(const nvinfer1::DimsExprs* in, int32_t inputs, const nvinfer1::DimsExprs*,
                                        int32_t, nvinfer1::DimsExprs* out, int32_t outputs,
                                        nvinfer1::IExprBuilder&) noexcept {
    if (inputs != kInputs || outputs != getNbOutputs()) return kBad;
    out[0] = in[kQuery];
    if (outputs > 1) {
        out[1].nbDims = 2;
        out[1].d[0] = in[kQuery].d[0];
        out[1].d[1] = in[kKeys].d[0];
    }
    return 0;
}

bool RelationPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* all, int32_t,
                                               int32_t) noexcept {
    const PluginTensorDesc& one = all[position].desc;
    return one.type == DataType::kFLOAT && one.format == TensorFormat::kLINEAR;
}

std::size_t RelationPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* in, int32_t, const DynamicPluginTensorDesc*,
                                             int32_t) const noexcept {
    const nvinfer1::Dims &query = in[kQuery].max, &keys = in[kKeys].max;
    return Sizes{query.d[0], query.d[1], keys.d[0], attributes_.heads}.all();
}

int32_t RelationPlugin::onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc*,
                                      int32_t outputs) noexcept {
    Sizes sizes{};
    const bool fits = inputs == kInputs && outputs == getNbOutputs() && read_sizes(in, attributes_.heads, &sizes);
    return fits ? 0 : kBad;
}

int32_t RelationPlugin::enqueue(const PluginTensorDesc* in, const PluginTensorDesc*, const void* const* inputs,
                                void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
    Sizes sizes{};
    if (!read_sizes(in, attributes_.heads, &sizes)) return kBad;
    auto* memory = static_cast<unsigned char*>(workspace);
    cuda::RelationAttention attention{};
    attention.queries = {floats(inputs, kBoxes), nullptr, sizes.rows};
    attention.supports = {floats(inputs, kSupportBoxes), nullptr, floats(inputs, kMultiplicity), sizes.supports};
    attention.query = inputs[kQuery];
    attention.keys = inputs[kKeys];
    attention.values = inputs[kValues];
    attention.geometry_weight = floats(inputs, kWeight);
    attention.geometry_bias = floats(inputs, kBias);
    attention.type = cuda::Type::kFloat32;
    attention.heads = sizes.heads;
    attention.head_dim = sizes.dim / sizes.heads;
    attention.split_size = kSplit;
    attention.places = sizes.rows;
    attention.partial = reinterpret_cast<float*>(memory);
    attention.partial_weight = reinterpret_cast<float*>(memory + sizes.partial());
    auto* weight = reinterpret_cast<float*>(memory + sizes.partial() + sizes.partial_weight());
    attention.workspace = memory + sizes.partial() + sizes.partial_weight() + sizes.weight();
    cuda::Status status = cuda::run(attention, stream);
    if (status != 0) return status;
    cuda::CombineRelation combine{};
    combine.partial = attention.partial;
    combine.partial_weight = attention.partial_weight;
    combine.splits = sizes.splits();
    combine.rows = sizes.rows;
    combine.heads = sizes.heads;
    combine.head_dim = attention.head_dim;
    combine.value_bias = floats(inputs, kValueBias);
    combine.type = cuda::Type::kFloat32;
    combine.out = outputs[0];
    combine.weight = weight;
    status = cuda::run(combine, stream);
    if (status != 0 || attributes_.omega == 0) return status;
    return cuda::run(cuda::RelationOmega{attention, weight, 0, sizes.supports, static_cast<float*>(outputs[1])},
                     stream);
}

nvinfer1::IPluginV3* RelationPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
    return clone();
}

const nvinfer1::PluginFieldCollection* RelationPlugin::getFieldsToSerialize() noexcept {
    fields_ = {PluginField("heads", &attributes_.heads, PluginFieldType::kINT32, 1),
               PluginField("omega", &attributes_.omega, PluginFieldType::kINT32, 1)};
    serialized_.nbFields = static_cast<int32_t>(fields_.size());
    serialized_.fields = fields_.data();
    return &serialized_;
}

RelationPluginCreator::RelationPluginCreator()
    : fields_{PluginField("heads", nullptr, PluginFieldType::kINT32, 1),
              PluginField("omega", nullptr, PluginFieldType::kINT32, 1)} {
    names_.nbFields = static_cast<int32_t>(fields_.size());
    names_.fields = fields_.data();
}

nvinfer1::IPluginV3* RelationPluginCreator::createPlugin(const char*, const nvinfer1::PluginFieldCollection* given,
                                                         nvinfer1::TensorRTPhase) noexcept {
    Attributes attributes{};
    bool heads = false, omega = false;
    for (int32_t i = 0; i < given->nbFields; ++i) {
        heads = read(given->fields[i], "heads", &attributes.heads) || heads;
        omega = read(given->fields[i], "omega", &attributes.omega) || omega;
    }
    const bool fits = heads && omega && attributes.heads >= 1 && (attributes.omega == 0 || attributes.omega == 1);
    return fits ? new (std::nothrow) RelationPlugin(attributes) : nullptr;
}

}  // namespace rdn::tensorrt

nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept {
    static rdn::tensorrt::RelationPluginCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    count = 1;
    return creators;
}

// Nothing is logged: what goes wrong is returned, and TensorRT reports it.
void setLoggerFinder(nvinfer1::ILoggerFinder*) noexcept {}
