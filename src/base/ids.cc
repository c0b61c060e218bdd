#include "base/ids.h"

#include <cctype>
#include <random>

namespace takt {

std::string RandomId(std::size_t length) {
  static constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::random_device source;
  std::uniform_int_distribution<std::size_t> pick(0, kAlphabet.size() - 1);
  std::string id(length, ' ');
  for (char& c : id) c = kAlphabet[pick(source)];
  return id;
}

bool IsValidName(std::string_view name) {
  constexpr std::size_t kMaxNameLength = 63;
  if (name.empty() || name.size() > kMaxNameLength) return false;
  if (std::isalnum(static_cast<unsigned char>(name.front())) == 0) return false;
  for (char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '.' && c != '-') {
      return false;
    }
  }
  return true;
}

}  // namespace takt
