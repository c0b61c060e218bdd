// The console is in the program, whole, and as its page refers to it.
#include "console/console_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "base/gzip.h"

namespace takt::console {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ConsoleFiles, EveryFileUnpacksToItsSize) {
  ASSERT_GT(Files().size(), 5U);
  for (const File& file : Files()) {
    EXPECT_EQ(Gunzip(file.gzip, file.bytes).value().size(), file.bytes) << file.path;
    EXPECT_FALSE(file.content_type.empty()) << file.path;
  }
}

TEST(ConsoleFiles, ThePageNamesOnlyFilesThatAreThere) {
  const File* page = Find("index.html");
  ASSERT_NE(page, nullptr);
  const std::string html = Gunzip(page->gzip, page->bytes).value();
  const std::regex reference(R"re((?:src|href)="\./([^"]+)")re");
  int references = 0;
  for (std::sregex_iterator it(html.begin(), html.end(), reference), end; it != end; ++it) {
    EXPECT_NE(Find((*it)[1].str()), nullptr) << (*it)[1];
    ++references;
  }
  EXPECT_GE(references, 3);  // script, style sheet, icon
}

// A strict policy forbids inline scripts and styles; the page must not need them.
TEST(ConsoleFiles, ThePageHasNothingInline) {
  const File* page = Find("index.html");
  ASSERT_NE(page, nullptr);
  const std::string html = Gunzip(page->gzip, page->bytes).value();
  EXPECT_THAT(html, Not(HasSubstr("<style")));
  EXPECT_THAT(html, Not(HasSubstr("style=")));
  EXPECT_FALSE(std::regex_search(html, std::regex("<script(?![^>]*src=)")));
}

TEST(ConsoleFiles, WhatIsNotThereIsNotFound) {
  EXPECT_EQ(Find("../index.html"), nullptr);
  EXPECT_EQ(Find(""), nullptr);
}

// What a browser must fetch before the front page shows.
TEST(ConsoleFiles, TheFirstPageIsUnder200Kilobytes) {
  std::size_t bytes = 0;
  const File* page = Find("index.html");
  ASSERT_NE(page, nullptr);
  const std::string html = Gunzip(page->gzip, page->bytes).value();
  for (const File& file : Files()) {
    if (&file == page || html.find(std::string(file.path)) != std::string::npos) {
      bytes += file.gzip.size();
    }
  }
  EXPECT_GT(bytes, 10'000U);
  EXPECT_LT(bytes, 200'000U);
}

}  // namespace
}  // namespace takt::console
