# docker build -t tttab . && docker run --rm --network none tttab run --dataset phoneme --n 200 --k 1000
FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
# The CPU build of torch: half a gigabyte instead of several.
RUN pip install --no-cache-dir uv && \
    uv pip install --system --no-cache --torch-backend cpu -c /wheels/constraints.txt /wheels/tttab-*.whl && \
    rm -rf /wheels
RUN useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["tttab"]
CMD ["--help"]
