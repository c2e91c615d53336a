// Does with the relation plugin what TensorRT does, in TensorRT's order, on host memory; called from Python.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "relation_plugin.h"

using namespace nvinfer1;

namespace {

std::unique_ptr<IPluginV3> create(const PluginFieldCollection& fields, TensorRTPhase phase) {
    int32_t count = 0;
    auto* creator = static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
    return std::unique_ptr<IPluginV3>(creator->createPlugin("relation", &fields, phase));
}

std::unique_ptr<IPluginV3> create(int32_t heads, int32_t omega) {
    const PluginField fields[] = {PluginField("omega", &omega, PluginFieldType::kINT32, 1),
                                  PluginField("heads", &heads, PluginFieldType::kINT32, 1)};
    PluginFieldCollection collection;
    collection.nbFields = 2;
    collection.fields = fields;
    return create(collection, TensorRTPhase::kBUILD);
}

template <class T>
T* part(IPluginV3& plugin, PluginCapabilityType type) {
    return static_cast<T*>(plugin.getCapabilityInterface(type));
}

// As a plan does: the fields are copied away from the plugin, which is gone when they are read.
std::unique_ptr<IPluginV3> through_a_plan(std::unique_ptr<IPluginV3> plugin) {
    auto* runtime = part<IPluginV3OneRuntime>(*plugin, PluginCapabilityType::kRUNTIME);
    const PluginFieldCollection* told = runtime->getFieldsToSerialize();
    std::vector<int32_t> values(told->nbFields);
    std::vector<PluginField> fields(told->fields, told->fields + told->nbFields);
    for (int32_t i = 0; i < told->nbFields; ++i) {
        std::memcpy(&values[i], fields[i].data, sizeof(int32_t));
        fields[i].data = &values[i];
    }
    plugin.reset();
    PluginFieldCollection kept;
    kept.nbFields = static_cast<int32_t>(fields.size());
    kept.fields = fields.data();
    auto loaded = create(kept, TensorRTPhase::kRUNTIME);
    if (loaded == nullptr) return nullptr;
    return std::unique_ptr<IPluginV3>(
        part<IPluginV3OneRuntime>(*loaded, PluginCapabilityType::kRUNTIME)->attachToContext(nullptr));
}

PluginTensorDesc describe(const int64_t* shape, DataType type = DataType::kFLOAT,
                          TensorFormat format = TensorFormat::kLINEAR) {
    PluginTensorDesc found{};
    for (found.dims.nbDims = 0; shape[found.dims.nbDims] > 0; ++found.dims.nbDims)
        found.dims.d[found.dims.nbDims] = shape[found.dims.nbDims];
    found.type = type;
    found.format = format;
    return found;
}

DynamicPluginTensorDesc range(const PluginTensorDesc& desc, int64_t more) {
    DynamicPluginTensorDesc found{desc, desc.dims, desc.dims, desc.dims};
    for (int32_t i = 0; i < desc.dims.nbDims; ++i)
        found.max.d[i] += i == 0 ? more : 0;
    return found;
}

}  // namespace

extern "C" {

// shapes [9][3], ended by 0; more: rows that the plan's largest size has beyond these. Returns the plugin's status.
int32_t drive(int32_t heads, int32_t omega, const int64_t* shapes, int64_t more, const void* const* inputs,
              void* const* outputs) {
    auto plugin = create(heads, omega);
    if (plugin == nullptr) return -1;
    std::vector<PluginTensorDesc> in, out(1 + omega);
    std::vector<DynamicPluginTensorDesc> ranges;
    for (int i = 0; i < 9; ++i) {
        in.push_back(describe(shapes + 3 * i));
        ranges.push_back(range(in.back(), more));
    }
    for (auto& one : out)
        ranges.push_back(range(one, 0));
    auto* build = part<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD);
    const int32_t status = build->configurePlugin(ranges.data(), 9, ranges.data() + 9, 1 + omega);
    if (status != 0) return status;
    const std::size_t bytes = build->getWorkspaceSize(ranges.data(), 9, ranges.data() + 9, 1 + omega);
    plugin = through_a_plan(std::move(plugin));
    if (plugin == nullptr) return -2;
    auto* runtime = part<IPluginV3OneRuntime>(*plugin, PluginCapabilityType::kRUNTIME);
    const int32_t changed = runtime->onShapeChange(in.data(), 9, out.data(), 1 + omega);
    if (changed != 0) return changed;
    // The last byte of the workspace is the last of a page, so that a sanitizer or a canary finds what is beyond.
    std::vector<unsigned char> memory(bytes + 512, 0xA5);
    auto* start = reinterpret_cast<unsigned char*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 255) / 256 * 256);
    const int32_t ran = runtime->enqueue(in.data(), out.data(), inputs, outputs, start, nullptr);
    for (std::size_t i = start - memory.data() + bytes; i < memory.size(); ++i)
        if (memory[i] != 0xA5) return -3;
    return ran;
}

// 1 where the plugin takes input or output `position` in this type and format.
int32_t takes(int32_t position, int32_t type, int32_t format) {
    auto plugin = create(16, 1);
    const int64_t shape[3] = {4, 4, 0};
    std::vector<DynamicPluginTensorDesc> all(11, range(describe(shape), 0));
    all[position].desc.type = static_cast<DataType>(type);
    all[position].desc.format = static_cast<TensorFormat>(format);
    return part<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD)
        ->supportsFormatCombination(position, all.data(), 9, 2);
}

// Output shapes as numbers of the inputs' dimensions, 2 * input + axis; returns the number of outputs, each of rank 2.
int32_t shapes_of_outputs(int32_t omega, int32_t* found) {
    auto plugin = create(16, omega);
    auto* build = part<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD);
    IDimensionExpr expressions[18];
    std::vector<DimsExprs> in(9), out(1 + omega);
    for (int i = 0; i < 9; ++i)
        in[i] = {2, {&expressions[2 * i], &expressions[2 * i + 1]}};
    IExprBuilder builder;
    DataType types[2] = {DataType::kHALF, DataType::kHALF};
    if (build->getOutputShapes(in.data(), 9, nullptr, 0, out.data(), 1 + omega, builder) != 0) return -1;
    if (build->getOutputDataTypes(types, 1 + omega, nullptr, 9) != 0) return -2;
    for (int i = 0; i <= omega; ++i) {
        if (out[i].nbDims != 2 || types[i] != DataType::kFLOAT) return -3;
        for (int axis = 0; axis < 2; ++axis)
            found[2 * i + axis] = static_cast<int32_t>(out[i].d[axis] - expressions);
    }
    return build->getNbOutputs();
}

// 1 where a plugin is made of `count` int32 fields.
int32_t makes(const char* const* names, const int32_t* values, const int32_t* types, int32_t count) {
    std::vector<PluginField> fields;
    for (int32_t i = 0; i < count; ++i)
        fields.emplace_back(names[i], &values[i], static_cast<PluginFieldType>(types[i]), 1);
    PluginFieldCollection collection;
    collection.nbFields = count;
    collection.fields = fields.data();
    return create(collection, TensorRTPhase::kBUILD) != nullptr;
}

const char* name_of_field(int32_t i) {
    int32_t count = 0;
    auto* creator = static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
    const PluginFieldCollection* names = creator->getFieldNames();
    return i < names->nbFields ? names->fields[i].name : nullptr;
}
}
