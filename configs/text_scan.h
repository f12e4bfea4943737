// Reads protobuf text format against a message type and finds *all* that is wrong with it.
//
// TextFormat::Parser stops at the first error and knows neither paths nor alternatives. The scan
// walks the same tokens (google::protobuf::io::Tokenizer), reports every unknown field and every
// value of a wrong type with its position and what would be legal, and hands on the entries that
// are right, which TextFormat then parses.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>

namespace sprocket::config {

// Where a field was given. Lines and columns count from 1; line 0 means the source as a whole.
struct Location {
  std::string source;  // a file's path, or the text of a flag such as --set 'parallel.ulysses: 2'
  int line = 0;
  int column = 0;
  std::string to_string() const;
};

struct Problem {
  Location location;    // an empty source: the field was not given anywhere
  std::string path;     // "parallel.ulysses"; empty: the text as a whole
  std::string message;  // what was expected, what was found, what is legal
  std::string to_string() const;
};

struct Source {
  std::string name;
  std::string text;
  // A flag's text: names may be dotted paths, and problems are located by the flag alone.
  bool is_flag = false;
};

struct Scan {
  std::string accepted;  // text format: the entries without problems
  std::map<std::string, Location>
      locations;  // of every accepted field, by path ("sampling.prompt", "link[1].class")
  std::set<std::string> rejected;  // paths of fields whose value was refused
  std::vector<Problem> problems;   // in the order of the text
  bool complete = true;            // false: the grammar broke and the rest is unread
};

Scan scan_text(const google::protobuf::Descriptor& type, const Source& source);

}  // namespace sprocket::config
