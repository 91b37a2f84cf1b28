// Holds every kernel that this machine can run to double-precision references: check [--quick] [VARIANT...]
//
// Links the kernels without the door, so it knows nothing of llama.cpp. Prints a line for each variant, kind of
// operation and arithmetic, and ends with 1 when a kernel is wrong. All memory lies between guard pages, so an overrun
// ends it on the spot.
#include <csignal>
#include <string>
#include <vector>

#include "../variants.h"
#include "attention.h"
#include "product.h"

namespace q3e::check {
namespace {

std::string running;  // for a signal, which cannot ask

void print_signal(int number) {
    const char text[] = "\nENDED BY A SIGNAL (an overrun, or an instruction that this CPU lacks) in ";
    ssize_t written = write(STDOUT_FILENO, text, sizeof text - 1);
    written += write(STDOUT_FILENO, running.data(), running.size());
    written += write(STDOUT_FILENO, "\n", 1);
    std::signal(number, SIG_DFL);
    std::raise(written > 0 ? number : SIGABRT);
}

bool check_products(const Variant& variant, bool quick) {
    bool good = true;
    for (Type type : {Type::Q4_K, Type::Q5_K, Type::Q6_K, Type::Q8_0, Type::BF16}) {
        Results results(std::string(variant.name) + " product " + name_of(type));
        for (const ProductCase& one : product_cases(type, quick)) {
            running = std::string(variant.name) + " product: " + one.name();
            check_product(variant, one, results);
        }
        good &= results.print();
    }
    return good;
}

bool check_attentions(const Variant& variant, bool quick) {
    bool good = true;
    for (Type type : {Type::F16, Type::BF16, Type::Q8_0, Type::F32}) {
        Results results(std::string(variant.name) + " attention " + name_of(type));
        for (const AttentionCase& one : attention_cases(type, quick)) {
            running = std::string(variant.name) + " attention: " + one.name();
            check_attention(variant, one, results);
        }
        good &= results.print();
    }
    return good;
}

bool is_asked_for(const std::vector<std::string>& names, const char* name) {
    return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

int check_all(const std::vector<std::string>& names, bool quick) {
    bool good = true;
    for (const Candidate& candidate : candidates) {
        const char* name = candidate.variant->name;
        if (!is_asked_for(names, name)) continue;
        if (const char* why = candidate.why_not()) {
            std::printf("%s skipped: %s\n", name, why);
            continue;
        }
        good &= check_products(*candidate.variant, quick);
        good &= check_attentions(*candidate.variant, quick);
    }
    std::puts(good ? "good" : "FAILED");
    return good ? 0 : 1;
}

}  // namespace
}  // namespace q3e::check

int main(int n, char** words) {
    std::vector<std::string> names;
    bool quick = false;
    for (int i = 1; i < n; ++i) {
        if (std::string(words[i]) == "--quick") {
            quick = true;
        } else {
            names.emplace_back(words[i]);
        }
    }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    for (int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) std::signal(number, q3e::check::print_signal);
#endif
    return q3e::check::check_all(names, quick);
}
