// NVRTC's functions: kernels are compiled by the C++ compiler, behind the header that has CUDA's words for it.

#include "card.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nvrtc.h>
#include <sstream>
#include <words.h>

namespace {

struct Program {
    std::string source, code, log;
};

Program &program_of(nvrtcProgram program) { return *reinterpret_cast<Program *>(program); }

std::string all_of(const std::string &path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

} // namespace

extern "C" {

nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *, int, const char *const *, const char *const *) {
    *program = reinterpret_cast<nvrtcProgram>(new Program{source, "", ""});
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program) {
    delete &program_of(*program);
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char *const *options) {
    char folder[] = "/tmp/card-XXXXXX";
    if (!mkdtemp(folder)) card::stop("there is no folder for kernels");
    std::string at = folder, source = at + "/kernels.cpp", library = at + "/kernels.so", log = at + "/log";
    std::ofstream(source) << CUDAS_WORDS << program_of(program).source;
    const char *compiler = std::getenv("CXX");
    std::string command = std::string(compiler ? compiler : "c++") + " -std=c++17 -O2 -U_FORTIFY_SOURCE -shared -fPIC -fsanitize=alignment,bounds,shift "
                          "-fsanitize-undefined-trap-on-error";
    for (int option = 0; option < count; option++)
        if (std::strncmp(options[option], "-D", 2) == 0) command += std::string(" '") + options[option] + "'";
    command += " " + source + " -o " + library + " 2>" + log;
    bool is_compiled = std::system(command.c_str()) == 0;
    program_of(program).log = all_of(log);
    std::string code = all_of(library);
    program_of(program).code = "library " + std::to_string(code.size()) + "\n" + code;
    std::filesystem::remove_all(at);
    return is_compiled ? NVRTC_SUCCESS : NVRTC_ERROR_COMPILATION;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes) {
    *bytes = program_of(program).code.size();
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *code) {
    std::memcpy(code, program_of(program).code.data(), program_of(program).code.size());
    return NVRTC_SUCCESS;
}

// Of no NVRTC that there is: what it compiled is no other's.
nvrtcResult nvrtcVersion(int *major, int *minor) {
    *major = *minor = 0;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes) {
    *bytes = program_of(program).log.size() + 1;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log) {
    std::strcpy(log, program_of(program).log.c_str());
    return NVRTC_SUCCESS;
}

} // extern "C"
