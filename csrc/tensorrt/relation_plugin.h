// One relation module (paper, eq. 1 to 4; DESIGN, section 2) as a TensorRT plugin over the launchers of cuda_ops.h.
//
// RdnRelation(query [n, D], boxes [n, 4], keys [S, D], values [S, D], support_boxes [S, 4], multiplicity [S],
//             geometry_weight [M, 64], geometry_bias [M], value_bias [D])
//     -> rel [n, D], without the residual; omega [n, S], softmax weights averaged over the heads, where omega = 1
// Everything float32 and linear. Attributes, int32: heads (M), omega (0 or 1).
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "rdn/cuda_ops.h"

namespace rdn::tensorrt {

constexpr char kName[] = "RdnRelation";
constexpr char kVersion[] = "1";
constexpr char kNamespace[] = "";
constexpr int32_t kInputs = 9;

struct Attributes {
    int32_t heads = 0;
    int32_t omega = 0;
};

class RelationPlugin final : public nvinfer1::IPluginV3,
                             public nvinfer1::IPluginV3OneCore,
                             public nvinfer1::IPluginV3OneBuild,
                             public nvinfer1::IPluginV3OneRuntime {
  public:
    explicit RelationPlugin(const Attributes& attributes) : attributes_(attributes) {}

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    const char* getPluginName() const noexcept override { return kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t getNbOutputs() const noexcept override { return 1 + attributes_.omega; }
    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, int32_t inputs,
                            const nvinfer1::DynamicPluginTensorDesc* out, int32_t outputs) noexcept override;
    int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t outputs, const nvinfer1::DataType* given,
                               int32_t inputs) const noexcept override;
    int32_t getOutputShapes(const nvinfer1::DimsExprs* in, int32_t inputs, const nvinfer1::DimsExprs* shapes,
                            int32_t shape_inputs, nvinfer1::DimsExprs* out, int32_t outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* all, int32_t inputs,
                                   int32_t outputs) noexcept override;
    std::size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* in, int32_t inputs,
                                 const nvinfer1::DynamicPluginTensorDesc* out, int32_t outputs) const noexcept override;

    int32_t onShapeChange(const nvinfer1::PluginTensorDesc* in, int32_t inputs, const nvinfer1::PluginTensorDesc* out,
                          int32_t outputs) noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc* out,
                    const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

  private:
    Attributes attributes_;
    std::array<nvinfer1::PluginField, 2> fields_;
    nvinfer1::PluginFieldCollection serialized_;
};

class RelationPluginCreator final : public nvinfer1::IPluginCreatorV3One {
  public:
    RelationPluginCreator();

    // Null where an attribute is missing, not int32, or out of range.
    nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &names_; }
    const char* getPluginName() const noexcept override { return kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

  private:
    std::array<nvinfer1::PluginField, 2> fields_;
    nvinfer1::PluginFieldCollection names_;
};

}  // namespace rdn::tensorrt

// What TensorRT looks for in a plugin library that it is told to load.
extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(
    int32_t& count) noexcept;
extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;
