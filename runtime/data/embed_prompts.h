// `sprocket data embed-prompts`: prompts to a prompt set (prompt_index.h describes the folder).
#pragma once

#include "runtime/data/embed_plan.h"

namespace sprocket::data {

// Embeds and writes; the output appears complete or not at all. Throws ConfigError and InputError
// as plan_embedding; InputError for a bad embedding file, for embeddings of other extents than the
// first one or the data set's, and for a data set whose version of the embedder is not here;
// OutputError for an output folder that already holds something and for failing writes.
PromptIndex embed_prompts(const EmbedOptions& options);

}  // namespace sprocket::data
