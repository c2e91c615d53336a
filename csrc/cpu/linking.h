// Box linking: which boxes may follow each other, the paths through them (paper, equation 9), their mean scores, and
// which paths go on from which.
#pragma once

#include <cstdint>
#include <vector>

namespace rdn::cpu {

struct Overlaps {
    const float* boxes;      // [rows, 4]
    const int64_t* classes;  // [rows]
    int64_t rows;
    const float* other_boxes;      // [other_rows, 4]
    const int64_t* other_classes;  // [other_rows]
    int64_t other_rows;
    float limit;  // of the IoU of a pair
    // pairs of one class, by row, then by other
    std::vector<int64_t> row, other;
    std::vector<float> iou;
};

void overlaps(Overlaps& args);

// Boxes are numbered frame by frame, so that every link goes from a smaller number to a larger one.
struct LinkPaths {
    const double* value;         // [boxes] what a path gains by the box
    const int64_t* link_start;   // [boxes + 1] the links into box b are link_start[b]..link_start[b + 1]
    const int64_t* source;       // [links] ascending within a box
    const double* score;         // [links] what a path gains by the link
    const int64_t* rival_start;  // [boxes + 1]
    const int64_t* rival;        // [rivals] boxes that leave with box b when a path takes it
    int64_t boxes, links;
    int64_t* path;  // [boxes] number of the box's path, -1 for a rival that left
};

// How many paths there are. Each is the one of highest gain among the boxes that earlier paths of its group left (boxes
// that links or rivals join); of equal ones that whose last box comes first, then its last but one, and so on. Groups
// are numbered by their first boxes.
int64_t link_paths(const LinkPaths& args);

struct GroupMeans {
    const int64_t* group;  // [count] in 0..groups-1
    const float* score;    // [count]
    int64_t count, groups;
    bool better_half;  // of each group's n scores only the ceil(n / 2) highest
    double* mean;      // [groups] 0 for an empty group
};

void group_means(const GroupMeans& args);

struct Assignment {
    const double* gain;  // [rows, columns] what a pair is worth; 0 or less for a pair that may not be
    int64_t rows, columns;
    int64_t* column;  // [rows] the column of each row, -1 for none
};

// Pairs of rows and columns, each in one pair at most, whose gains have the largest sum.
void assign(const Assignment& args);

}  // namespace rdn::cpu
