// What samples that are a few lines from the middle of a program take as given.
#pragma once

#ifdef SAMPLE_OF_PLUGIN
#include <bulkhead/sdk.hpp>
#else
#include <bulkhead/host.hpp>
#endif

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

#ifdef SAMPLE_OF_APPLICATION
using bulkhead::policy;

extern bulkhead::bytes jpeg;              // the contents of a file
extern std::ifstream file;                // an open one
extern bulkhead::plugin image, tools;     // plugins that are loaded
extern bulkhead::host_options options;
#endif
