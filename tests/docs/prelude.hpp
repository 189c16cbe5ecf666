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

extern bulkhead::bytes jpeg;           // the contents of a file
extern std::ifstream file;             // an open one
extern bulkhead::plugin image, tools;  // plugins that are loaded
extern bulkhead::bytes model_bytes;
extern std::size_t size;
void read_into(std::span<std::uint8_t> to);
void load_into(std::span<std::uint8_t> to);
void save(std::span<const std::uint8_t> from);
#endif

#ifdef SAMPLE_OF_PLUGIN
template <class From, class To>
void blur(From from, To to, int radius);
template <class Model, class Image>
std::string classify(Model model, Image image);
#endif
