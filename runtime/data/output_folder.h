// A folder that appears complete or not at all.
#pragma once

#include <string>

namespace sprocket::data {

// Files are written into a temporary folder beside the final one; commit() flushes them to the disk
// and renames the folder. Without a commit the destructor removes everything.
class OutputFolder {
 public:
  // Throws OutputError when `path` exists and is no empty folder ("already holds …"), or when the
  // temporary folder cannot be created. Missing parent folders are created.
  explicit OutputFolder(const std::string& path);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  // Where a file goes until the commit.
  std::string file(const std::string& name) const { return temporary_ + "/" + name; }
  // Throws OutputError with the step that failed and the system's reason.
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  bool committed_ = false;
};

}  // namespace sprocket::data
