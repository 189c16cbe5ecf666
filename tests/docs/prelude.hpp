// What samples that are a few lines from the middle of a program take as given.
#pragma once

#ifdef SAMPLE_OF_PLUGIN
#include <bulkhead/sdk.hpp>
#include <bulkhead/sdk/serve.hpp>
#else
#include <bulkhead/host.hpp>
#endif

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <span>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

#ifdef SAMPLE_OF_APPLICATION
using bulkhead::policy;
using bulkhead::restart_strategy;

inline bulkhead::bytes jpeg;           // the contents of a file
inline std::ifstream file;             // an open one
inline bulkhead::plugin image, tools;  // plugins that are loaded
inline bulkhead::bytes model_bytes;
inline std::size_t size;
inline void read_into(std::span<std::uint8_t>) {}
inline void load_into(std::span<std::uint8_t>) {}
inline void save(std::span<const std::uint8_t>) {}
#endif

#ifdef SAMPLE_OF_PLUGIN
template <class From, class To>
void blur(From, To, int) {}
template <class Model, class Image>
std::string classify(Model, Image) {
  return {};
}
#endif
