// See image.hpp, downscaler: an exact area average in both directions. Each source pixel is spread over the result
// pixels that it overlaps, colours weighted by alpha, so that transparent pixels lend no colour.
#include "image.hpp"

#include <algorithm>
#include <cmath>

namespace image {

void downscaler::begin(unsigned width, unsigned height) {
  width_ = width;
  height_ = height;
  const unsigned longer = std::max(width, height);
  const double scale = longer > max_side_ ? static_cast<double>(max_side_) / longer : 1.0;
  result_.width = std::max(1u, static_cast<unsigned>(std::lround(width * scale)));
  result_.height = std::max(1u, static_cast<unsigned>(std::lround(height * scale)));
  result_.rgba.resize(std::size_t{4} * result_.width * result_.height);
  horizontal_.resize(std::size_t{4} * result_.width);
  sums_.assign(std::size_t{4} * result_.width, 0.0F);
}

void downscaler::row(const std::uint8_t* rgba) {
  if (y_ == height_) return;
  // Horizontally: the source pixel x covers [x, x + 1) * out / in of the result.
  std::fill(horizontal_.begin(), horizontal_.end(), 0.0F);
  const float step = static_cast<float>(result_.width) / static_cast<float>(width_);
  unsigned column = 0;
  for (unsigned x = 0; x < width_; ++x, rgba += 4) {
    const float begin = static_cast<float>(x) * step, end = static_cast<float>(x + 1) * step;
    while (column + 1 < result_.width && static_cast<float>(column + 1) <= begin) ++column;
    const float alpha = rgba[3];
    const float red = rgba[0] * alpha, green = rgba[1] * alpha, blue = rgba[2] * alpha;
    for (unsigned at = column; at < result_.width && static_cast<float>(at) < end; ++at) {
      const float weight = std::min(end, static_cast<float>(at + 1)) - std::max(begin, static_cast<float>(at));
      float* sum = &horizontal_[4 * std::size_t{at}];
      sum[0] += red * weight, sum[1] += green * weight, sum[2] += blue * weight, sum[3] += alpha * weight;
    }
  }
  // Vertically: the same for whole rows; this row may end one result row and begin the next.
  const double rows = static_cast<double>(result_.height) / height_;
  double begin = y_ * rows;
  const double end = (y_ + 1) * rows;
  ++y_;
  while (begin < end && out_y_ < result_.height) {
    const double part = std::min(end, out_y_ + 1.0) - begin;
    const auto weight = static_cast<float>(part);
    for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += horizontal_[i] * weight;
    filled_ += weight;
    begin += part;
    const bool last = y_ == height_ && begin >= end;
    if (begin >= out_y_ + 1.0 - 1e-9 || last) finish_row();
    if (part <= 0) break;
  }
}

void downscaler::finish_row() {
  std::uint8_t* out = &result_.rgba[std::size_t{4} * result_.width * out_y_];
  for (std::size_t i = 0; i < sums_.size(); i += 4) {
    const float alpha = sums_[i + 3];
    for (std::size_t c = 0; c < 3; ++c)
      out[i + c] = alpha > 0 ? static_cast<std::uint8_t>(std::min(255.0F, sums_[i + c] / alpha + 0.5F)) : 0;
    out[i + 3] = static_cast<std::uint8_t>(std::min(255.0F, (filled_ > 0 ? alpha / filled_ : 0.0F) + 0.5F));
  }
  std::fill(sums_.begin(), sums_.end(), 0.0F);
  filled_ = 0;
  ++out_y_;
}

picture downscaler::take() {
  if (y_ != height_)
    throw image_error("the image is cut short: " + std::to_string(y_) + " of " + std::to_string(height_) + " rows");
  return std::move(result_);
}

}  // namespace image
