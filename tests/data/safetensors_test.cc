#include "models/safetensors/safetensors.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/philox.h"
#include "models/safetensors/tensor_set.h"
#include "models/safetensors/writer.h"
#include "tests/data/temporary_folder.h"

namespace sprocket::safetensors {
namespace {

using sprocket::testing::message_of;
using sprocket::testing::read_bytes;
using sprocket::testing::TemporaryFolder;
using sprocket::testing::write_bytes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string file_bytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

Header parse(const std::string& bytes) {
  return parse_header(std::as_bytes(std::span(bytes)), "x.safetensors");
}

std::string refusal(const std::string& header, size_t data_bytes) {
  return message_of<InputError>([&] { parse(file_bytes(header, std::string(data_bytes, '\1'))); });
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

TEST(Safetensors, RoundTrip) {
  TemporaryFolder folder;
  std::vector<float> weights(12);
  std::iota(weights.begin(), weights.end(), -3.5f);
  const std::vector<double> scalar = {0.1};
  const std::vector<uint8_t> flags = {1, 2, 3};
  const std::vector<BFloat16> half = {BFloat16(1.5f), BFloat16(-2.0f)};
  const std::string path = folder / "a.safetensors";
  write_file(path,
             {{{"flags", ElementType::kU8, {3}}, bytes_of(flags)},
              {{"weights", ElementType::kF32, {3, 4}}, bytes_of(weights)},
              {{"half", ElementType::kBF16, {2, 1}}, bytes_of(half)},
              {{"none", ElementType::kI64, {4, 0}}, {}},
              {{"scalar", ElementType::kF64, {}}, bytes_of(scalar)}},
             {{"format", "test"}, {"quote", "\"\\\n\u00e9"}}, true);
  const File file = File::open(path);
  EXPECT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.metadata().at("quote"), "\"\\\n\u00e9");
  EXPECT_EQ(file.floats(file.at("weights")), weights);
  EXPECT_EQ(file.floats(file.at("scalar")), std::vector<float>{0.1f});
  EXPECT_EQ(file.floats(file.at("half")), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_THAT(file.at("weights").shape, ElementsAre(3, 4));
  EXPECT_TRUE(file.at("scalar").shape.empty());
  EXPECT_EQ(file.at("none").bytes, 0u);
  EXPECT_EQ(file.find("other"), nullptr);
  for (const TensorInfo& tensor : file.tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(file.data(tensor).data()) % size_of(tensor.type), 0u);
  }
  EXPECT_THAT(message_of<InputError>([&] { file.floats(file.at("flags")); }),
              AllOf(HasSubstr(path), HasSubstr("flags"), HasSubstr("U8")));
  EXPECT_THAT(message_of<InputError>([&] { file.at("other"); }), HasSubstr("\"other\""));
}

TEST(Safetensors, EqualInputGivesEqualBytesInAnyOrder) {
  TemporaryFolder folder;
  const std::vector<float> a = {1, 2}, b = {3};
  write_file(folder / "1", {{{"a", ElementType::kF32, {2}}, bytes_of(a)},
                            {{"b", ElementType::kF32, {1}}, bytes_of(b)}});
  Writer writer(folder / "2", {{"b", ElementType::kF32, {1}}, {"a", ElementType::kF32, {2}}});
  writer.write("b", bytes_of(b));
  writer.write("a", bytes_of(a));
  writer.close(false);
  EXPECT_EQ(read_bytes(folder / "1"), read_bytes(folder / "2"));
  EXPECT_EQ(read_bytes(folder / "1").size(), writer.file_bytes());
}

TEST(Safetensors, HalfPrecisionConversion) {
  // All finite halves, against the definition of the format.
  for (int bits = 0; bits < 0x7c00; ++bits) {
    const int exponent = bits >> 10, mantissa = bits & 1023;
    const double expected =
        exponent == 0 ? mantissa * 0x1p-24 : (1024 + mantissa) * std::pow(2.0, exponent - 25);
    const std::vector<uint16_t> both = {static_cast<uint16_t>(bits),
                                        static_cast<uint16_t>(bits | 0x8000)};
    float values[2];
    ASSERT_TRUE(convert_to_float(ElementType::kF16, bytes_of(both), values));
    ASSERT_EQ(values[0], expected);
    ASSERT_EQ(values[1], -expected);
  }
  const std::vector<uint16_t> special = {0x7c00, 0x7e00};
  float values[2];
  convert_to_float(ElementType::kF16, bytes_of(special), values);
  EXPECT_TRUE(std::isinf(values[0]) && std::isnan(values[1]));
}

TEST(SafetensorsBadInput, FilesThatAreNone) {
  TemporaryFolder folder;
  EXPECT_THAT(message_of<InputError>([&] { File::open(folder / "missing"); }),
              AllOf(HasSubstr(folder / "missing"), HasSubstr("No such file")));
  EXPECT_THAT(message_of<InputError>([&] { File::open(folder.path().string()); }),
              HasSubstr("Is a directory"));
  write_bytes(folder / "empty", "");
  EXPECT_THAT(message_of<InputError>([&] { File::open(folder / "empty"); }), HasSubstr("found 0"));
  write_bytes(folder / "text", "This is a text of more than eight bytes.");
  EXPECT_THAT(message_of<InputError>([&] { File::open(folder / "text"); }),
              HasSubstr("no safetensors file"));
}

TEST(SafetensorsBadInput, HeaderLength) {
  std::string bytes = file_bytes("{}", "");
  bytes[7] = 0x10;  // 2^60
  EXPECT_THAT(message_of<InputError>([&] { parse(bytes); }),
              AllOf(HasSubstr("1152921504606846978"), HasSubstr("100000000")));
  bytes = file_bytes("{}", "");
  bytes[0] = 3;
  EXPECT_THAT(message_of<InputError>([&] { parse(bytes); }), HasSubstr("truncated"));
  EXPECT_THAT(refusal("", 0), HasSubstr("never finished"));
  EXPECT_THAT(refusal("[]", 0), HasSubstr("begins with"));
  EXPECT_NO_THROW(parse(file_bytes("{}   ", "")));
}

TEST(SafetensorsBadInput, Headers) {
  const struct {
    const char* header;
    size_t data_bytes;
    const char* message;
  } kCases[] = {
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 8, "not valid JSON"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}})", 8, "not valid JSON"},
      {R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8, "\"F31\", expected one of"},
      {R"({"a":{"dtype":1,"shape":[2],"data_offsets":[0,8]}})", 8, "dtype: expected a string"},
      {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "shape: expected an array"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "negative number -2"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "the number 2.0"},
      {R"({"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})", 8, "found a string"},
      {R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8, "found an array"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "takes 12 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "found 1"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}})", 8, "found more"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "before the begin"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "\"data_offsets\" is missing"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8, "unknown key \"x\""},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8, "twice"},
      {R"({"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,8]}})", 8,
       "more than 2^63"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "more than 2^63"},
      {R"({"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,8]}})", 8, "number"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "a hole lies before"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, "truncated"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9, "has 9 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       12,
       "\"b\": its data begin at "
       "byte 4, expected 8 (it overlaps"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
       12, "a hole lies before"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1, "\"a\": appears twice"},
      {R"({"a":1})", 0, "expected an object, found a number"},
      {R"({"a":null})", 0, "found null"},
      {R"({"__metadata__":{"a":1}})", 0, "__metadata__ key \"a\": expected a string"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", 0, "twice"},
      {R"({"__metadata__":{"a":{}}})", 0, "found an object"},
      {"{\"__metadata__\":{\"a\":\"\xff\"}}", 0, "not valid JSON"},
  };
  for (const auto& item : kCases) {
    SCOPED_TRACE(item.header);
    EXPECT_THAT(refusal(item.header, item.data_bytes),
                AllOf(HasSubstr("x.safetensors"), HasSubstr(item.message)));
  }
  // Deep nesting must not cost stack.
  EXPECT_THAT(refusal("{\"a\":" + std::string(1'000'000, '['), 0), HasSubstr("found an array"));
}

TEST(SafetensorsBadInput, MutatedFilesAreReadOrRefused) {
  const std::string original = file_bytes(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b.weight":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},)"
      R"("c":{"dtype":"U8","shape":[],"data_offsets":[32,33]}} )",
      std::string(33, '\7'));
  ASSERT_EQ(parse(original).tensors.size(), 3u);
  const std::string alphabet = R"({}[]",:0123456789-.eE\ abdtypeshF)";
  int refused = 0, accepted = 0;
  for (uint64_t round = 0; round < 6000; ++round) {
    const RandomStream random(17, round, 0, RandomPurpose::kTest);
    std::string bytes = original;
    const uint64_t edits = 1 + random.below(0, 4);
    for (uint64_t edit = 0; edit < edits; ++edit) {
      const uint64_t base = 8 * (edit + 1);
      const size_t position = random.below(base, bytes.size());
      const char letter = alphabet[random.below(base + 4, alphabet.size())];
      switch (random.below(base + 2, 5)) {
        case 0:
          bytes[position] ^= static_cast<char>(1u << random.below(base + 3, 8));
          break;
        case 1:
          bytes[position] = letter;
          break;
        case 2:
          bytes.insert(position, 1, letter);
          break;
        case 3:
          bytes.erase(position, 1 + random.below(base + 3, 9));
          break;
        case 4:
          bytes.resize(std::max<size_t>(position, 1));
          break;
      }
    }
    try {
      const Header header = parse(bytes);
      uint64_t end = header.data_begin;
      for (const TensorInfo& tensor : header.tensors) {
        ASSERT_EQ(header.data_begin + tensor.offset, end);
        end += tensor.bytes;
      }
      ASSERT_EQ(end, bytes.size());
      ++accepted;
    } catch (const InputError& error) {
      ASSERT_THAT(error.what(), HasSubstr("x.safetensors"));
      ++refused;
    }
  }
  EXPECT_GT(refused, 3000);
  EXPECT_GT(accepted, 100);  // mutations of names and data are legal
}

TEST(SafetensorsWriter, DiskFullAndReadOnlyFolder) {
  TemporaryFolder folder;
  const std::vector<float> values(1 << 16);
  const std::vector<TensorToWrite> tensors = {
      {{"a", ElementType::kF32, {1 << 16}}, bytes_of(values)}};
  EXPECT_THAT(message_of<OutputError>([&] { write_file("/dev/full", tensors); }),
              AllOf(HasSubstr("/dev/full"), HasSubstr("No space left on device")));
  EXPECT_THAT(message_of<OutputError>([&] { write_file(folder / "no/such/folder", tensors); }),
              HasSubstr("No such file or directory"));
  if (geteuid() != 0) {
    std::filesystem::permissions(
        folder.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    EXPECT_THAT(message_of<OutputError>([&] { write_file(folder / "a", tensors); }),
                HasSubstr("Permission denied"));
  } else {
    EXPECT_THAT(message_of<OutputError>([&] { write_file("/proc/a", tensors); }),
                HasSubstr("cannot be created"));
  }
}

TEST(SafetensorsWriter, AnUnfinishedFileIsRefused) {
  TemporaryFolder folder;
  const std::vector<float> values = {1, 2};
  {
    Writer writer(folder / "a", {{"a", ElementType::kF32, {2}}, {"b", ElementType::kF32, {2}}});
    writer.write("a", bytes_of(values));
    EXPECT_THROW(writer.write("a", bytes_of(values)), InternalError);
    EXPECT_THROW(writer.write("c", bytes_of(values)), InternalError);
    EXPECT_THROW(writer.close(false), InternalError);
  }
  EXPECT_THAT(message_of<InputError>([&] { File::open(folder / "a"); }),
              HasSubstr("never finished"));
  EXPECT_THROW(Writer(folder / "b", {{"a", ElementType::kF32, {2}}, {"a", ElementType::kF32, {2}}}),
               InternalError);
}

class ShardedIndex : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::vector<float> values = {1, 2};
    for (const std::string name : {"a", "b"}) {
      write_file(folder_ / (name + ".safetensors"),
                 {{{name, ElementType::kF32, {2}}, bytes_of(values)}});
    }
  }
  std::string write_index(const std::string& text) {
    const std::string path = folder_ / "m.safetensors.index.json";
    write_bytes(path, text);
    return path;
  }
  std::string refusal(const std::string& text) {
    const std::string path = write_index(text);
    return message_of<InputError>([&] { TensorSet::open(path); });
  }
  TemporaryFolder folder_;
};

TEST_F(ShardedIndex, IsReadFromItselfOrItsFolder) {
  const std::string path =
      write_index(R"({"metadata":{},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})");
  for (const std::string& source : {path, folder_.path().string()}) {
    const TensorSet set = TensorSet::open(source);
    EXPECT_THAT(set.names(), ElementsAre("a", "b"));
    EXPECT_EQ(set.floats("b"), (std::vector<float>{1, 2}));
    EXPECT_EQ(set.path(), path);
    EXPECT_THAT(message_of<InputError>([&] { set.at("c"); }), HasSubstr("\"c\""));
  }
  EXPECT_THAT(TensorSet::open(folder_ / "a.safetensors").names(), ElementsAre("a"));
}

TEST_F(ShardedIndex, RefusesADamagedOne) {
  EXPECT_THAT(refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{}"), HasSubstr("weight_map"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":1}})"), HasSubstr("name of a file"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":)" + std::string(1'000'000, '[')),
              HasSubstr("expected at most 64 levels"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"../a.safetensors"}})"), HasSubstr("own folder"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"x.safetensors"}})"), HasSubstr("No such file"));
  EXPECT_THAT(refusal(R"({"weight_map":{"c":"a.safetensors"}})"), HasSubstr("does not hold it"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"a.safetensors","a":"b.safetensors"}})"),
              HasSubstr("appears twice"));
  const std::vector<float> values = {1, 2};
  write_file(folder_ / "both.safetensors", {{{"a", ElementType::kF32, {2}}, bytes_of(values)},
                                            {{"b", ElementType::kF32, {2}}, bytes_of(values)}});
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"both.safetensors"}})"), HasSubstr("does not list"));
  EXPECT_THAT(refusal(R"({"weight_map":{"a":"both.safetensors","b":"b.safetensors"}})"),
              HasSubstr("expects elsewhere"));
}

TEST_F(ShardedIndex, AFolderWithoutIndexMustHoldOneFile) {
  EXPECT_THAT(message_of<InputError>([&] { TensorSet::open(folder_.path().string()); }),
              HasSubstr("found 0 and 2"));
}

}  // namespace
}  // namespace sprocket::safetensors
