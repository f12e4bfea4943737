#include "runtime/checkpoint/manifest.h"

#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "base/error.h"
#include "runtime/data/file_hash.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFirstLine = "sprocket manifest 1";
constexpr uintmax_t kMaxManifestBytes = 64 << 20;

template <class T>
std::optional<T> parse_number(std::string_view text, int base) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Text up to the next separator, which is consumed; nullopt when there is none.
std::optional<std::string_view> take_until(std::string_view& text, char separator) {
  const size_t end = text.find(separator);
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(end + 1);
  return taken;
}

bool is_plain_relative(std::string_view file) {
  const fs::path path(file);
  if (file.empty() || path.is_absolute()) return false;
  return std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

std::optional<ManifestEntry> parse_entry(std::string_view line) {
  const auto bytes_text = take_until(line, ' ');
  const auto hash_text = take_until(line, ' ');
  if (!bytes_text || !hash_text || hash_text->size() != 16) return std::nullopt;
  const auto bytes = parse_number<uint64_t>(*bytes_text, 10);
  const auto hash = parse_number<uint64_t>(*hash_text, 16);
  if (!bytes || !hash || !is_plain_relative(line)) return std::nullopt;
  return ManifestEntry{std::string(line), *bytes, *hash};
}

std::string last_line(size_t files, std::string_view above) {
  return fmt::format("end {} {:016x}\n", files, XXH3_64bits(above.data(), above.size()));
}

std::optional<std::string> damage_of(const std::string& folder, const ManifestEntry& entry,
                                     VerifyDepth depth) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(fs::path(folder) / entry.file, error);
  if (error) return fmt::format("{}: {}", entry.file, error.message());
  if (bytes != entry.bytes) {
    return fmt::format("{}: {} bytes, the manifest says {}", entry.file, bytes, entry.bytes);
  }
  if (depth == VerifyDepth::kSizes) return std::nullopt;
  const uint64_t hash = describe_file(folder, entry.file).hash;
  if (hash == entry.hash) return std::nullopt;
  return fmt::format("{}: contents hash to {:016x}, the manifest says {:016x}", entry.file, hash,
                     entry.hash);
}

// Calls `visit` with every reason until it returns false.
void visit_damage(const std::string& folder, VerifyDepth depth,
                  const std::function<bool(const std::string&)>& visit) {
  std::vector<ManifestEntry> entries;
  try {
    entries = read_manifest(folder);
  } catch (const InputError& damage) {
    visit(damage.what());
    return;
  }
  for (const ManifestEntry& entry : entries) {
    std::optional<std::string> damage;
    try {
      damage = damage_of(folder, entry, depth);
    } catch (const InputError& unreadable) {
      damage = unreadable.what();
    }
    if (damage && !visit(*damage)) return;
  }
}

}  // namespace

std::string manifest_text(std::vector<ManifestEntry> entries) {
  std::sort(entries.begin(), entries.end(),
            [](const ManifestEntry& a, const ManifestEntry& b) { return a.file < b.file; });
  std::string text = fmt::format("{}\n", kFirstLine);
  for (const ManifestEntry& entry : entries) {
    text += fmt::format("{} {:016x} {}\n", entry.bytes, entry.hash, entry.file);
  }
  return text + last_line(entries.size(), text);
}

std::vector<ManifestEntry> parse_manifest(std::string_view text, const std::string& where) {
  std::string_view rest = text;
  const auto first = take_until(rest, '\n');
  if (!first || *first != kFirstLine) {
    throw InputError(fmt::format("{}:1: expected '{}', found '{}'", where, kFirstLine,
                                 text.substr(0, std::min<size_t>(text.find('\n'), 80))));
  }
  std::vector<ManifestEntry> entries;
  for (int number = 2;; ++number) {
    const std::string_view above = text.substr(0, text.size() - rest.size());
    if (rest.starts_with("end ")) {
      if (rest != last_line(entries.size(), above)) {
        throw InputError(fmt::format("{}:{}: the closing line does not fit what stands above it",
                                     where, number));
      }
      return entries;
    }
    const auto line = take_until(rest, '\n');
    if (!line) throw InputError(fmt::format("{}:{}: ends before its closing line", where, number));
    auto entry = parse_entry(*line);
    if (!entry) {
      throw InputError(
          fmt::format("{}:{}: expected '<bytes> <16 hex digits> <file>'", where, number));
    }
    entries.push_back(std::move(*entry));
  }
}

ManifestEntry describe_file(const std::string& folder, const std::string& file) {
  const data::FileHash hash = data::hash_file((fs::path(folder) / file).string());
  return {file, hash.bytes, hash.xxh3};
}

std::vector<ManifestEntry> read_manifest(const std::string& folder) {
  const fs::path path = fs::path(folder) / kManifestName;
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) throw InputError(fmt::format("{}: {}", kManifestName, error.message()));
  if (bytes > kMaxManifestBytes) {
    throw InputError(fmt::format("{}: {} bytes, at most {} are possible", kManifestName, bytes,
                                 kMaxManifestBytes));
  }
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return parse_manifest(text.str(), std::string(kManifestName));
}

std::optional<std::string> find_damage(const std::string& folder, VerifyDepth depth) {
  std::optional<std::string> first;
  visit_damage(folder, depth, [&first](const std::string& damage) {
    first = damage;
    return false;
  });
  return first;
}

std::vector<std::string> find_all_damage(const std::string& folder, VerifyDepth depth) {
  std::vector<std::string> all;
  visit_damage(folder, depth, [&all](const std::string& damage) {
    all.push_back(damage);
    return true;
  });
  return all;
}

}  // namespace sprocket::runtime
