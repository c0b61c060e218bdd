#include "plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/str.h"

namespace takt {
namespace {

constexpr double kWidth = 900;
constexpr double kHeight = 360;
constexpr double kLeft = 70;
constexpr double kRight = 20;
constexpr double kTop = 30;
constexpr double kBottom = 40;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

}  // namespace

std::string PlotSvg(const std::vector<PlotPoint>& points) {
  double last = 1;
  double low = 1e9;
  double high = 1;
  for (const PlotPoint& point : points) {
    last = std::max(last, point.second.at_seconds);
    low = std::min(low, std::max(point.second.p50_us, 1.0));
    high = std::max(high, point.second.p99_us);
  }
  const double from = std::floor(std::log10(std::min(low, high)));
  const double to = std::max(std::ceil(std::log10(high)), from + 1);
  auto x = [&](double seconds) { return kLeft + seconds / last * (kWidth - kLeft - kRight); };
  auto y = [&](double us) {
    const double share = (std::log10(std::max(us, 1.0)) - from) / (to - from);
    return kHeight - kBottom - share * (kHeight - kTop - kBottom);
  };
  std::string svg = StrCat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ",
                           Number(kWidth), " ", Number(kHeight),
                           "\" font-family=\"sans-serif\" font-size=\"12\">\n"
                           "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n");
  for (double decade = from; decade <= to; ++decade) {
    const double us = std::pow(10, decade);
    const std::string at = Number(y(us));
    svg += StrCat("<line x1=\"", Number(kLeft), "\" x2=\"", Number(kWidth - kRight), "\" y1=\"", at,
                  "\" y2=\"", at, "\" stroke=\"#ddd\"/>\n<text x=\"", Number(kLeft - 6), "\" y=\"",
                  Number(y(us) + 4), "\" text-anchor=\"end\">",
                  us >= 1000 ? StrCat(Number(us / 1000), " ms") : StrCat(Number(us), " us"),
                  "</text>\n");
  }
  for (int i = 0; i <= 5; ++i) {
    svg +=
        StrCat("<text x=\"", Number(x(last * i / 5)), "\" y=\"", Number(kHeight - 14),
               "\" text-anchor=\"middle\">", Number(std::round(last * i * 2) / 10), " s</text>\n");
  }
  std::optional<std::int64_t> version;
  for (const PlotPoint& point : points) {
    if (!point.version.has_value() || point.version == version) continue;
    if (version.has_value()) {
      const std::string at = Number(x(point.second.at_seconds));
      svg += StrCat("<line x1=\"", at, "\" x2=\"", at, "\" y1=\"", Number(kTop), "\" y2=\"",
                    Number(kHeight - kBottom),
                    "\" stroke=\"#2a2\" stroke-dasharray=\"4 3\"/>\n<text x=\"", at, "\" y=\"",
                    Number(kTop - 8), "\" text-anchor=\"middle\">version ", *point.version,
                    "</text>\n");
    }
    version = point.version;
  }
  struct Line {
    const char* name;
    const char* colour;
    double load::LoadSecond::*value;
  };
  double legend = kLeft;
  for (const Line& line : {Line{"p50", "#26c", &load::LoadSecond::p50_us},
                           Line{"p99", "#c33", &load::LoadSecond::p99_us}}) {
    svg +=
        StrCat("<polyline fill=\"none\" stroke=\"", line.colour, "\" stroke-width=\"2\" points=\"");
    for (const PlotPoint& point : points) {
      svg +=
          StrCat(Number(x(point.second.at_seconds)), ",", Number(y(point.second.*line.value)), " ");
    }
    svg += StrCat("\"/>\n<text x=\"", Number(legend), "\" y=\"", Number(kTop - 8), "\" fill=\"",
                  line.colour, "\">", line.name, "</text>\n");
    legend += 40;
  }
  return svg + "</svg>\n";
}

}  // namespace takt
