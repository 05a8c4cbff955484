define internal void @"k_small.body"(ptr noalias readonly nofree align 4 %p0, ptr noalias readonly nofree align 1 %p1, ptr noalias nofree align 4 %p2, i64 %lo, i64 %hi) nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512" {
entry:
  %v3 = icmp slt i64 %lo, %hi
  br i1 %v3, label %b1, label %b2
b1:
  %ib1 = phi i64 [ %lo, %entry ], [ %nb1, %b4 ]
  %v5 = mul i64 %ib1, 8
  %v6 = getelementptr inbounds float, ptr %p0, i64 %v5
  %v7 = load <8 x float>, ptr %v6, align 4
  %v8 = fcmp ogt <8 x float> splat (float 0x0000000000000000), %v7
  %v9 = select <8 x i1> %v8, <8 x float> splat (float 0x0000000000000000), <8 x float> %v7
  %v10 = getelementptr inbounds i8, ptr %p1, i64 0
  %v11 = load i8, ptr %v10, align 1
  %v12 = icmp ne i8 %v11, 0
  br i1 %v12, label %b13, label %b14
b13:
  %v16 = getelementptr inbounds float, ptr %p2, i64 %v5
  %v17 = load <8 x float>, ptr %v16, align 4
  %v18 = call <8 x float> @llvm.fma.v8f32(<8 x float> %v9, <8 x float> %v9, <8 x float> %v17)
  store <8 x float> %v18, ptr %v16, align 4
  br label %b15
b14:
  %v19 = shufflevector <8 x float> %v9, <8 x float> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v20 = getelementptr inbounds float, ptr %p2, i64 %v5
  store <4 x float> %v19, ptr %v20, align 4
  %v21 = extractelement <8 x float> %v9, i64 4
  %v22 = add i64 %v5, 4
  %v23 = getelementptr inbounds float, ptr %p2, i64 %v22
  store float %v21, ptr %v23, align 4
  br label %b15
b15:
  br label %b4
b4:
  %nb1 = add nsw i64 %ib1, 1
  %v24 = icmp slt i64 %nb1, %hi
  br i1 %v24, label %b1, label %b2
b2:
  ret void
}
define void @"k_small"(ptr noalias readonly %args, i64 %lo, i64 %hi) nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512" {
entry:
  %v1 = getelementptr inbounds ptr, ptr %args, i64 0
  %v2 = load ptr, ptr %v1, align 8
  %v3 = getelementptr inbounds ptr, ptr %args, i64 1
  %v4 = load ptr, ptr %v3, align 8
  %v5 = getelementptr inbounds ptr, ptr %args, i64 2
  %v6 = load ptr, ptr %v5, align 8
  call void @"k_small.body"(ptr %v2, ptr %v4, ptr %v6, i64 %lo, i64 %hi)
  ret void
}
