// A program that is a card: all kernels compiled for the host, and a little driver that listens on standard input.
//
// Requests begin with a letter; numbers are 8 bytes, little endian; text and data are a number of bytes and the bytes.
//   A bytes                    memory of that size, full of NaN -> its address
//   F address                  gives memory back
//   W address data             writes
//   R address bytes            -> that many bytes
//   L seed grid_x grid_y threads shared name count arguments   runs a kernel -> text, empty when all went well
// It ends with its input. A request that is none ends it with a word on standard error.
#include "device.cuh"

#include "activation.cu"
#include "attention.cu"
#include "attention_backward.cu"
#include "attention_bf16.cu"
#include "attention_bf16_backward.cu"
#include "loss.cu"
#include "norm.cu"
#include "optim.cu"
#include "rope.cu"
#include "rows.cu"
#ifdef PROBES
#include PROBES  // kernels of the tests alone
#endif

#include <cstdio>
#include <cstdlib>

static void read_all(void* to, size_t bytes) {
    if (bytes > 0 && std::fread(to, 1, bytes, stdin) != bytes) std::exit(0);
}

static u64 number() {
    u64 value = 0;
    read_all(&value, sizeof(value));
    return value;
}

static std::string text() {
    std::string value(number(), '\0');
    read_all(&value[0], value.size());
    return value;
}

static void answer(const void* data, size_t bytes) {
    if (std::fwrite(data, 1, bytes, stdout) != bytes) std::exit(1);
    std::fflush(stdout);
}

static std::string launch() {
    const u64 seed = number(), grid_x = number(), grid_y = number(), threads = number(), shared = number();
    const std::string name = text();
    emulate::Arguments arguments(number());
    for (std::string& argument : arguments) argument = text();
    const auto found = emulate::kernels().find(name);
    if (found == emulate::kernels().end()) return name + ": no such kernel";
    // As on a card: a grid of 0 blocks is an error.
    if (grid_x == 0 || grid_y == 0 || grid_x > 0x7fffffff || grid_y > 65535) return name + ": no such grid";
    if (threads != found->second.threads) {
        return name + ": blocks have " + std::to_string(found->second.threads) + " threads";
    }
    emulate::machine.body = found->second.bind(arguments);
    if (!emulate::machine.body) return name + ": other arguments than the kernel's";
    emulate::machine.run(static_cast<u32>(grid_x), static_cast<u32>(grid_y), static_cast<u32>(threads), shared, seed);
    return emulate::machine.error.empty() ? "" : name + ": " + emulate::machine.error;
}

int main() {
    std::map<u64, std::unique_ptr<unsigned char[]>> memory;
    for (int request = std::getchar(); request != EOF; request = std::getchar()) {
        if (request == 'A') {
            auto block = emulate::Machine::nan_bytes(number());
            const u64 address = reinterpret_cast<u64>(block.get());
            memory.emplace(address, std::move(block));
            answer(&address, sizeof(address));
        } else if (request == 'F') {
            memory.erase(number());
        } else if (request == 'W') {
            const u64 address = number();
            const std::string data = text();
            std::memcpy(reinterpret_cast<void*>(address), data.data(), data.size());
        } else if (request == 'R') {
            const u64 address = number();
            answer(reinterpret_cast<const void*>(address), number());
        } else if (request == 'L') {
            const std::string message = launch();
            const u64 length = message.size();
            answer(&length, sizeof(length));
            answer(message.data(), message.size());
        } else {
            std::fprintf(stderr, "no request begins with byte %d\n", request);
            return 1;
        }
    }
    return 0;
}
