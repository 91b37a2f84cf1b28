// llama.cpp's Vulkan backend uses the types of VK_EXT_layer_settings, which came with the Vulkan headers 1.3.272. This
// file gives them to a compiler with older headers, as those of Debian 12 and Ubuntu 22.04: CXXFLAGS="-include FILE".
// Names, values and the order of the fields are those of the specification:
// https://registry.khronos.org/vulkan/specs/latest/man/html/VkLayerSettingEXT.html
// llama.cpp fills them in for the validation layer alone; drivers and older loaders pass over structures that they do
// not know.
#if __has_include(<vulkan/vulkan_core.h>)
#include <vulkan/vulkan_core.h>
#ifndef VK_EXT_layer_settings
#include <cstdint>
#include <vector>

namespace vk {

enum class LayerSettingTypeEXT { eBool32 = 0 };

struct LayerSettingEXT {
    const char * pLayerName;
    const char * pSettingName;
    LayerSettingTypeEXT type;
    uint32_t valueCount;
    const void * pValues;
};

struct LayerSettingsCreateInfoEXT {
    explicit LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> & settings) :
        settingCount(static_cast<uint32_t>(settings.size())), pSettings(settings.data()) {}

    VkStructureType sType = static_cast<VkStructureType>(1000496000);  // VK_STRUCTURE_TYPE_LAYER_SETTINGS_CREATE_INFO_EXT
    const void * pNext = nullptr;
    uint32_t settingCount;
    const LayerSettingEXT * pSettings;
};

}  // namespace vk
#endif
#endif
