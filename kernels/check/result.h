// What became of the cases of one variant and one kind of operation, apart for each arithmetic.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

#include "arithmetic.h"

namespace q3e::check {

class Result {
  public:
    Result(std::string title, Bound bound) : title_(std::move(title)), bound_(bound) {}

    void left() { ++left_; }

    // Begins a case that the kernel took.
    void begin(std::string name) {
        name_ = std::move(name);
        ++cases_;
        squares_ = 0;
        numbers_ = 0;
        has_failed_ = false;
    }

    // One number of the output: where it is, what the reference says, and the unit of its error.
    void compare(double got, double expected, double unit, const char* place, int64_t i, int64_t j) {
        const double difference = std::fabs(got - expected);
        const double error = difference == 0 ? 0 : difference / unit;  // without a unit any difference is too large
        worst_ = std::max(worst_, std::isnan(error) ? INFINITY : error);
        squares_ += std::isnan(error) ? INFINITY : error * error;
        ++numbers_;
        if (!(error <= bound_.worst)) {
            char text[200];
            std::snprintf(text, sizeof text, "%s %lld, %lld: expected %.9g, got %.9g, error %.2g of %.2g allowed", place,
                          static_cast<long long>(i), static_cast<long long>(j), expected, got, error, bound_.worst);
            fail(text);
        }
    }

    void end() {
        const double mean = numbers_ ? std::sqrt(squares_ / static_cast<double>(numbers_)) : 0;
        mean_ = std::max(mean_, mean);
        // The mean of few numbers may be as large as the largest of them.
        if (numbers_ >= 1000 && !(mean <= bound_.mean)) {
            char text[100];
            std::snprintf(text, sizeof text, "mean error %.2g of %.2g allowed", mean, bound_.mean);
            fail(text);
        }
    }

    // Prints the first failure of a case, for the first five cases that fail.
    void fail(const std::string& why) {
        if (has_failed_) return;
        has_failed_ = true;
        if (++failed_ <= 5) std::printf("FAILED %s\n    %s\n    %s\n", title_.c_str(), name_.c_str(), why.c_str());
    }

    // Prints one line; returns whether all went well.
    bool print() const {
        std::printf("%-32s %5lld cases, %4lld left to llama.cpp, worst error %.1e of %.0e, mean %.1e of %.0e%s\n", title_.c_str(),
                    static_cast<long long>(cases_), static_cast<long long>(left_), worst_, bound_.worst, mean_, bound_.mean,
                    failed_ ? (", FAILED " + std::to_string(failed_)).c_str() : "");
        std::fflush(stdout);
        return failed_ == 0;
    }

  private:
    std::string title_, name_;
    Bound bound_;
    int64_t cases_ = 0, left_ = 0, failed_ = 0, numbers_ = 0;
    double worst_ = 0, mean_ = 0, squares_ = 0;
    bool has_failed_ = false;
};

class Results {
  public:
    explicit Results(std::string title) : title_(std::move(title)) {}

    // Those with this rounding
    Result& of(Rounding rounding, Bound bound) {
        return results_.try_emplace(rounding, title_ + ", " + name_of(rounding), bound).first->second;
    }

    // Prints a line for each; returns whether all went well.
    bool print() const {
        bool good = true;
        for (const auto& [rounding, result] : results_) good &= result.print();
        return good;
    }

  private:
    std::string title_;
    std::map<Rounding, Result> results_;
};

}  // namespace q3e::check
