#include "runtime/control/contact_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace sprocket::control {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

std::string refusal(const std::string& path) {
  try {
    read_contact_file(path);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

std::string write(const std::string& text) {
  std::string path = ::testing::TempDir() + "contact_" + std::to_string(getpid());
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  chmod(path.c_str(), 0600);
  return path;
}

TEST(ContactFile, IsReadBackAndRemoved) {
  const Contact contact{Secret::random(), {{"127.0.0.1", 4567}, {"::1", 65535}}};
  std::string path;
  {
    const ContactFile file(::testing::TempDir(), contact);
    path = file.path();
    struct stat status {};
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600u);
    const Contact found = read_contact_file(path);
    EXPECT_EQ(found.secret.hex(), contact.secret.hex());
    ASSERT_EQ(found.addresses.size(), 2u);
    EXPECT_EQ(found.addresses[1].host, "::1");
    EXPECT_EQ(found.addresses[1].port, 65535);
    EXPECT_THAT(path, Not(HasSubstr(contact.secret.hex())));
  }
  EXPECT_FALSE(fs::exists(path));
  EXPECT_THAT(refusal(path), HasSubstr("No such file"));
}

TEST(ContactFile, OneThatOthersCanReadIsRefused) {
  const ContactFile file(::testing::TempDir(), {Secret::random(), {{"127.0.0.1", 1}}});
  chmod(file.path().c_str(), 0640);
  EXPECT_THAT(refusal(file.path()), HasSubstr("found mode 0640"));
}

TEST(ContactFile, WhatIsNoneIsRefusedWithoutBeingRepeated) {
  const std::string secret = Secret::random().hex(), first = "sprocket control 1\n";
  const std::pair<std::string, const char*> cases[] = {
      {"", "first line"},
      {"sprocket control 2\n" + secret + "\n127.0.0.1 1\n", "first line"},
      {first, "64 hexadecimal digits"},
      {first + secret.substr(2) + "\n127.0.0.1 1\n", "64 hexadecimal digits"},
      {first + secret + "\n", "expected an address"},
      {first + secret + "\n127.0.0.1\n", "an address and a port"},
      {first + secret + "\n127.0.0.1 70000\n", "an address and a port"},
      {first + secret + "\n127.0.0.1 \n", "an address and a port"},
      {first + secret + "\n127.0.0.1 0\n", "an address and a port"},
      {first + secret + "\n" + std::string(5000, 'x'), "a few lines"},
  };
  for (const auto& [text, what] : cases) {
    const std::string path = write(text);
    EXPECT_THAT(refusal(path), ::testing::AllOf(HasSubstr(what), Not(HasSubstr(secret.substr(2)))))
        << text;
    fs::remove(path);
  }
  EXPECT_THAT(refusal("/"), HasSubstr("expected a file"));
}

TEST(ContactFile, AFolderThatCannotBeWritten) {
  EXPECT_THROW(ContactFile("/nowhere/at/all", {Secret::random(), {}}), OutputError);
}

}  // namespace
}  // namespace sprocket::control
