// The transformer that a job describes: which of models/, of what sizes, with what weights.
#pragma once

#include <memory>
#include <vector>

#include "configs/job.pb.h"
#include "models/cogvideox/cogvideox_config.h"
#include "models/layer_parameters.h"
#include "models/model_compute.h"
#include "models/parameter_store.h"
#include "models/video_transformer.h"
#include "models/wan/wan_config.h"
#include "parallel/mesh.h"

namespace sprocket::runtime {

// Of a job of the family WAN, and of one of COGVIDEOX.
models::WanConfig wan_config(const config::Job& job);
models::CogVideoXConfig cogvideox_config(const config::Job& job);

// Every tensor of the job's model under its official name.
std::vector<models::ParameterSpec> model_parameters(const config::Job& job);

// A store of model_parameters(job) in the type that the job computes with, and with the copies that
// its device needs.
std::unique_ptr<models::ParameterStore> make_parameters(const config::Job& job,
                                                        const at::Device& device,
                                                        models::ParameterStore::Use use);
// The same of other parameters of the job.
std::unique_ptr<models::ParameterStore> make_parameters(const config::Job& job,
                                                        std::vector<models::ParameterSpec> specs,
                                                        const at::Device& device,
                                                        models::ParameterStore::Use use);

// compute.precision.
at::ScalarType compute_type(const config::Job& job);

// `weights` holds model_parameters(job), in fp64 exactly when compute.dtype is kDouble. Its stores
// and the mesh must outlive the model and every graph made with it.
std::unique_ptr<models::VideoTransformer> make_model(const config::Job& job,
                                                     const models::ModelWeights& weights,
                                                     const parallel::Mesh& mesh,
                                                     const models::ModelCompute& compute);

// Fills `parameters` from model.weights, or where that is empty by training.seed. Throws InputError
// for weights that do not fit.
void start_parameters(const config::Job& job, models::ParameterStore& parameters);

}  // namespace sprocket::runtime
