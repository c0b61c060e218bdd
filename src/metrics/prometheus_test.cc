#include "metrics/prometheus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace takt::metrics {
namespace {

TEST(Exposition, ReadsWhatAModelServerOffers) {
  const auto parsed = ParseExposition(R"(# HELP x y
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{status="OK",model_name="mnist"} 12
# TYPE latency histogram
latency_bucket{le="1.5"} 3 1395066363000
latency_bucket{le="+Inf"} 5
latency_sum 7.25
latency_count 5
# TYPE up gauge
up 1
odd{a="q\"\\\n",} NaN
)");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->figures.size(), 7u);
  const Figure& count = parsed->figures[0];
  EXPECT_EQ(count.name, ":tensorflow:serving:request_count");
  EXPECT_EQ(count.labels, (Labels{{"model_name", "mnist"}, {"status", "OK"}}));
  EXPECT_EQ(count.type, Type::kCounter);
  EXPECT_EQ(count.value, 12);
  EXPECT_EQ(parsed->figures[1].type, Type::kCounter);
  EXPECT_EQ(parsed->figures[1].value, 3);
  EXPECT_EQ(parsed->figures[3].value, 7.25);
  EXPECT_EQ(parsed->figures[3].type, Type::kCounter);
  EXPECT_EQ(parsed->figures[5].type, Type::kGauge);
  EXPECT_EQ(parsed->figures[6].labels[0].second, "q\"\\\n");
  EXPECT_TRUE(std::isnan(parsed->figures[6].value));
}

TEST(Exposition, ErrorsNameTheLine) {
  for (const char* bad : {"a 1\n{x=\"1\"} 2\n", "a 1\nb{x=1} 2\n", "a 1\nb{x=\"1\" 2\n",
                          "a 1\nb one\n", "a 1\nb\n", "a 1\n<html>\n"}) {
    const auto parsed = ParseExposition(bad);
    EXPECT_THAT(std::string(parsed.status().message()), testing::HasSubstr("line 2")) << bad;
  }
}

TEST(Exposition, HasALimit) {
  std::string text;
  for (std::size_t i = 0; i < kMaxScrapedFigures + 7; ++i) {
    text += "m{i=\"" + std::to_string(i) + "\"} 1\n";
  }
  const auto parsed = ParseExposition(text);
  EXPECT_EQ(parsed->figures.size(), kMaxScrapedFigures);
  EXPECT_EQ(parsed->dropped, 7u);
}

TEST(Exposition, WhatIsWrittenIsReadBack) {
  const std::vector<Figure> figures = {
      {"a_total", {{"x", "q\"\\\n"}}, Type::kCounter, 1.5},
      {"b", {}, Type::kGauge, -std::numeric_limits<double>::infinity()},
      {"bytes_total", {}, Type::kCounter, 1234567890123},  // every byte of it
      {"seconds_total", {}, Type::kCounter, 1764043200.125},
      {"share", {}, Type::kGauge, 0.1},
  };
  const auto parsed = ParseExposition(WriteExposition(figures));
  ASSERT_TRUE(parsed.ok());
  ASSERT_EQ(parsed->figures.size(), figures.size());
  for (std::size_t i = 0; i < figures.size(); ++i) {
    EXPECT_EQ(parsed->figures[i].name, figures[i].name);
    EXPECT_EQ(parsed->figures[i].labels, figures[i].labels);
    EXPECT_EQ(parsed->figures[i].type, figures[i].type);
    EXPECT_EQ(parsed->figures[i].value, figures[i].value);
  }
}

double Value(const std::vector<Figure>& figures, const std::string& name, const Labels& labels) {
  for (const Figure& f : figures) {
    if (f.name == name && f.labels == labels) return f.value;
  }
  ADD_FAILURE() << "no " << name;
  return 0;
}

TEST(Node, ReadsTheKernelsTables) {
  std::vector<Figure> out;
  ParseStat("cpu  100 0 50 800 5 0 1 0 0 0\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 5\n", 100, out);
  ParseMeminfo("MemTotal:       24000 kB\nMemAvailable:   12000 kB\n", out);
  ParseNetDev(
      "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
      "  eth0:1000 2 1 4 5 6 7 8 2000 10 3 12 13 14 15 16\n",
      out);
  ParseDiskstats(
      " 254 0 vda 1 2 100 4 5 6 200 8 9 3000 11 0 0 0\n 254 1 vda1 1 2 3 4 5 6 7 8 9 10 11 0 0 0\n",
      out);
  ParsePressure("io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull total=1\n", out);
  EXPECT_EQ(Value(out, "takt_node_cpu_seconds_total", {{"mode", "idle"}}), 8);
  EXPECT_EQ(Value(out, "takt_node_cores", {}), 2);
  EXPECT_EQ(Value(out, "takt_node_memory_bytes", {{"kind", "available"}}), 12000 * 1024);
  EXPECT_EQ(Value(out, "takt_node_network_receive_bytes_total", {{"device", "eth0"}}), 1000);
  EXPECT_EQ(Value(out, "takt_node_network_transmit_errors_total", {{"device", "eth0"}}), 3);
  EXPECT_EQ(Value(out, "takt_node_disk_read_bytes_total", {{"device", "vda"}}), 51200);
  EXPECT_EQ(Value(out, "takt_node_disk_io_seconds_total", {{"device", "vda"}}), 3);
  EXPECT_EQ(Value(out, "takt_node_pressure_waiting_seconds_total", {{"resource", "io"}}), 2.5);
  for (const Figure& f : out) {
    for (const auto& [name, value] : f.labels) {
      EXPECT_NE(value, "lo");
      EXPECT_NE(value, "vda1");
    }
  }
}

TEST(Node, ThisMachineHasCoresAndMemory) {
  const auto figures = ReadNode({"/"});
  EXPECT_GT(Value(figures, "takt_node_cores", {}), 0);
  EXPECT_GT(Value(figures, "takt_node_memory_bytes", {{"kind", "total"}}), 0);
  EXPECT_GT(Value(figures, "takt_node_filesystem_size_bytes", {{"directory", "/"}}), 0);
}

}  // namespace
}  // namespace takt::metrics
