// What cuDNN is called with.

#pragma once

#include "card.h"

struct Handle {
    CUstream stream;
    // Made with it, and not destroyed yet.
    int plans;
};
